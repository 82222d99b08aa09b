//! Graph's side of a request: access token, permission, limits, and then the operation on the tenant's collection. It
//! never waits: what it does happens at one moment.

use crate::body::AnswerBody;
use crate::changes::Changes;
use crate::effects::By;
use crate::entity::Entity;
use crate::entra::{Permission, Unauthenticated};
use crate::errors::{Failure, RequestIds, respond};
use crate::log::Operation;
use crate::route::{Page, Route};
use crate::secret::Secret;
use crate::settings::{Paging, Settings, SyncAnswer, UpdateAnswer};
use crate::state::State;
use crate::throttle;
use axum::http::header::{AUTHORIZATION, CONTENT_LENGTH, TRANSFER_ENCODING};
use axum::http::{HeaderMap, Response};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

const JSON: &str = "application/json;odata.metadata=minimal;odata.streaming=true;IEEE754Compatible=false;charset=utf-8";

/// The body of a request.
pub(crate) enum Payload {
    /// None at all.
    Empty,
    /// Parameters of the token endpoint.
    Form(BTreeMap<String, Secret>),
    /// A JSON object.
    Object(Map<String, Value>),
    /// Something else.
    Unreadable,
}

/// All that an answer depends on, besides the memory.
pub(crate) struct Call<'a> {
    pub(crate) sequence: u64,
    pub(crate) route: &'a Route,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) payload: &'a Payload,
    pub(crate) ids: &'a RequestIds,
    pub(crate) base_url: &'a str,
}

/// An answer, and the entity that a create made.
pub(crate) struct Answer {
    pub(crate) response: Response<AnswerBody>,
    pub(crate) created: Option<String>,
}

/// Carries out a request.
pub(crate) fn answer(state: &mut State, call: &Call<'_>) -> Answer {
    let now = state.now();
    if call.route.operation == Operation::Token {
        let none = BTreeMap::new();
        let form = if let Payload::Form(form) = call.payload { form } else { &none };
        let tenant = call.route.tenant.as_deref().unwrap_or_default();
        let State { directory, settings, random, .. } = state;
        let response = directory.answer(tenant, form, call.ids, now, settings, random);
        return Answer { response, created: None };
    }
    match carry_out(state, call) {
        Ok(answer) => answer,
        Err(failure) => {
            let response = failure.respond(state.settings.error_body, call.ids, now.wall);
            Answer { response, created: None }
        }
    }
}

fn carry_out(state: &mut State, call: &Call<'_>) -> Result<Answer, Failure> {
    let now = state.now();
    let operation = call.route.operation;
    let authorization = call.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let grant = state.directory.check(authorization, now.instant).map_err(|why| {
        let message = match why {
            Unauthenticated::Missing => "Access token is empty.",
            Unauthenticated::Unknown => "Invalid access token.",
            Unauthenticated::Expired => "Lifetime validation failed, the token is expired.",
        };
        Failure::plain(401, "InvalidAuthenticationToken", message)
    })?;
    state.limiter.pass(&grant.tenant, &grant.client_id, operation.is_write(), now.instant, &state.settings).map_err(
        |wait| {
            Failure::plain(429, "TooManyRequests", "Too many requests.")
                .retry_after(throttle::header(wait, state.settings.retry_after))
        },
    )?;
    let allowed = match grant.permission {
        Permission::ReadWrite => true,
        Permission::Read => !operation.is_write(),
        Permission::None => false,
    };
    if !allowed {
        return Err(Failure::nested(
            403,
            "Forbidden",
            "Application is not authorized to perform this operation. Application must have one of the following \
             scopes: DeviceManagementApps.ReadWrite.All, DeviceManagementServiceConfig.ReadWrite.All",
        ));
    }
    let sends_length = call.headers.contains_key(CONTENT_LENGTH) || call.headers.contains_key(TRANSFER_ENCODING);
    let needs_length = matches!(operation, Operation::Create | Operation::Update | Operation::SyncLicenses);
    if state.settings.require_content_length && needs_length && !sends_length {
        return Err(Failure::length_required());
    }

    let missing = || Failure::nested(404, "ResourceNotFound", "Resource not found.");
    let id = call.route.id.as_deref().unwrap_or_default();
    let api = call.route.api;
    let root = format!("{}/{}", call.base_url, api.segment());
    let context = format!("{root}/$metadata#deviceAppManagement/vppTokens");
    let by = By::Request(call.sequence);
    let tenant = grant.tenant.as_str();
    if state.collection(tenant).0.is_hidden(id, now) {
        return Err(missing());
    }
    let wire = |entity: &Entity, settings: &Settings| {
        let mut wire = entity.to_wire(api, settings);
        wire.insert("@odata.context".to_owned(), json!(format!("{context}/$entity")));
        Value::Object(wire)
    };
    let json = |status, body: Value| Answer { response: respond(status, JSON, body.to_string()), created: None };
    let no_content = || Answer { response: respond(204, "", String::new()), created: None };
    match operation {
        Operation::List => {
            let page = call.route.page.as_ref().ok_or_else(missing)?;
            if let Some(wrong) = &page.wrong {
                return Err(Failure::bad_request(wrong));
            }
            let (collection, settings) = state.collection(tenant);
            let limit = page.top.unwrap_or(settings.page_size).min(settings.page_size).max(1);
            // One more than fits shows whether there is a next page.
            let mut found = collection.page(page.after, page.offset, limit + 1, now, settings);
            let more = found.len() > limit;
            found.truncate(limit);
            let value: Vec<Value> =
                found.iter().map(|(_, entity)| Value::Object(entity.to_wire(api, settings))).collect();
            let mut body = json!({"@odata.context": context, "value": value});
            if more {
                let (after, offset) = match settings.paging {
                    Paging::AfterEntry => (found.last().map(|(position, _)| *position), 0),
                    Paging::ByOffset => (None, page.offset + limit),
                };
                let next = Page { number: page.number + 1, after, offset, top: page.top, wrong: None };
                let url = format!("{root}/deviceAppManagement/vppTokens?$skiptoken={}", next.skiptoken());
                body["@odata.nextLink"] = json!(url);
            }
            Ok(json(200, body))
        }
        Operation::Get => {
            let (collection, settings) = state.collection(tenant);
            Ok(json(200, wire(&collection.get(id, now, settings).ok_or_else(missing)?, settings)))
        }
        Operation::Create => {
            let changes = Changes::read(object(call.payload)?, api, true, &state.settings)?;
            let entity = state.create(tenant, changes, by)?;
            let answer = json(201, wire(&entity, &state.settings));
            Ok(Answer { created: Some(entity.id), ..answer })
        }
        Operation::Update => {
            let body = object(call.payload)?;
            let (collection, settings) = state.collection(tenant);
            collection.get(id, now, settings).ok_or_else(missing)?;
            let changes = Changes::read(body, api, false, settings)?;
            let entity = state.update(tenant, id, changes, by).ok_or_else(missing)??;
            Ok(match state.settings.update_answer {
                UpdateAnswer::Entity => json(200, wire(&entity, &state.settings)),
                UpdateAnswer::NoContent => no_content(),
            })
        }
        Operation::Delete => {
            if state.remove(tenant, id, by) {
                Ok(no_content())
            } else {
                Err(missing())
            }
        }
        Operation::SyncLicenses => {
            let entity = state.sync(tenant, id, by).ok_or_else(missing)??;
            let settings = &state.settings;
            Ok(match settings.sync_answer {
                SyncAnswer::Entity => json(200, wire(&entity, settings)),
                SyncAnswer::Wrapped => json(200, json!({"value": entity.to_wire(api, settings)})),
                SyncAnswer::Null => json(200, Value::Null),
                SyncAnswer::NoContent => no_content(),
            })
        }
        Operation::Token | Operation::Other => {
            Err(Failure::bad_request("The emulator does not know this resource or method."))
        }
    }
}

fn object(payload: &Payload) -> Result<&Map<String, Value>, Failure> {
    match payload {
        Payload::Object(object) => Ok(object),
        Payload::Empty => Err(Failure::bad_request("Empty Payload. JSON content expected.")),
        Payload::Form(_) | Payload::Unreadable => Err(Failure::bad_request(
            "Unable to read JSON request payload. Please ensure Content-Type header is set and payload is of valid \
             JSON format.",
        )),
    }
}
