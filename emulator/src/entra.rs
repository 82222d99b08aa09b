//! The token endpoint of Microsoft Entra ID: registered apps, what it checks, the access tokens it issues, and its
//! errors.

use crate::body::AnswerBody;
use crate::clock::Now;
use crate::errors::{RequestIds, respond};
use crate::random::Random;
use crate::secret::Secret;
use crate::settings::Settings;
use axum::http::{HeaderValue, Response};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::{BTreeMap, HashMap};
use tokio::time::Instant;

/// What an app may do. It is written into an access token when that is issued, as roles are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Permission {
    /// Nothing was consented to: everything is answered with 403.
    None,
    /// `DeviceManagementServiceConfig.Read.All`: writes are answered with 403.
    Read,
    /// `DeviceManagementServiceConfig.ReadWrite.All`.
    #[default]
    ReadWrite,
}

/// A registered app.
#[derive(Debug, Clone)]
pub(crate) struct App {
    pub(crate) secret: Secret,
    pub(crate) secret_expired: bool,
    pub(crate) permission: Permission,
}

/// What an access token stands for.
#[derive(Debug, Clone)]
pub(crate) struct Grant {
    pub(crate) tenant: String,
    pub(crate) client_id: String,
    pub(crate) permission: Permission,
    expires: Instant,
}

/// The apps of every tenant, and all access tokens. Not `Debug`: the tokens are its keys.
#[derive(Default)]
pub(crate) struct Directory {
    tenants: BTreeMap<String, BTreeMap<String, App>>,
    grants: HashMap<String, Grant>,
}

/// Why a Graph call is refused with 401.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unauthenticated {
    Missing,
    Unknown,
    Expired,
}

impl Directory {
    /// Registers an app, and its tenant; an app with the same id is replaced.
    pub(crate) fn add_app(&mut self, tenant: &str, client_id: &str, secret: Secret) {
        let app = App { secret, secret_expired: false, permission: Permission::default() };
        self.tenants.entry(key(tenant)).or_default().insert(key(client_id), app);
    }

    /// A registered app.
    pub(crate) fn app_mut(&mut self, tenant: &str, client_id: &str) -> Option<&mut App> {
        self.tenants.get_mut(&key(tenant))?.get_mut(&key(client_id))
    }

    /// All apps: tenant, client id, app.
    pub(crate) fn apps(&self) -> impl Iterator<Item = (&str, &str, &App)> {
        self.tenants
            .iter()
            .flat_map(|(tenant, apps)| apps.iter().map(move |(id, app)| (tenant.as_str(), id.as_str(), app)))
    }

    /// Makes all access tokens unknown.
    pub(crate) fn revoke_all(&mut self) {
        self.grants.clear();
    }

    /// What the value of an `Authorization` header stands for, whether or not it has expired.
    pub(crate) fn peek(&self, authorization: Option<&str>) -> Option<&Grant> {
        bearer(authorization?).and_then(|token| self.grants.get(token))
    }

    /// What the value of an `Authorization` header stands for, if it is good.
    pub(crate) fn check(&self, authorization: Option<&str>, now: Instant) -> Result<Grant, Unauthenticated> {
        let token = authorization.and_then(bearer).filter(|token| !token.is_empty()).ok_or(Unauthenticated::Missing)?;
        let grant = self.grants.get(token).ok_or(Unauthenticated::Unknown)?;
        if grant.expires <= now { Err(Unauthenticated::Expired) } else { Ok(grant.clone()) }
    }

    /// Answers a token request.
    pub(crate) fn answer(
        &mut self,
        tenant: &str,
        form: &BTreeMap<String, Secret>,
        ids: &RequestIds,
        now: Now,
        settings: &Settings,
        random: &mut Random,
    ) -> Response<AnswerBody> {
        match self.issue(tenant, form, now, settings, random) {
            Ok(token) => {
                let lifetime = settings.scaled(settings.access_token_lifetime).as_secs();
                let body = json!({
                    "token_type": "Bearer",
                    "expires_in": lifetime,
                    "ext_expires_in": lifetime,
                    "access_token": token,
                });
                let mut response = respond(200, "application/json; charset=utf-8", body.to_string());
                response.headers_mut().insert("cache-control", HeaderValue::from_static("no-store, no-cache"));
                response
            }
            Err(refusal) => refusal.respond(ids, now.wall, random),
        }
    }

    fn issue(
        &mut self,
        tenant: &str,
        form: &BTreeMap<String, Secret>,
        now: Now,
        settings: &Settings,
        random: &mut Random,
    ) -> Result<String, Refusal> {
        let parameter = |name: &str| form.get(name).map(Secret::expose).filter(|value| !value.is_empty());
        let required = |name: &str| {
            parameter(name).ok_or_else(|| {
                let text = format!("The request body must contain the following parameter: '{name}'.");
                Refusal::new(400, "invalid_request", 900_144, text)
            })
        };
        let apps = self.tenants.get(&key(tenant)).ok_or_else(|| {
            let text = format!(
                "Tenant '{tenant}' not found. Check to make sure you have the correct tenant ID and are signing into \
                 the correct cloud. Check with your subscription administrator, this may happen if there are no \
                 active subscriptions for the tenant."
            );
            Refusal::new(400, "invalid_request", 90_002, text)
        })?;
        let grant_type = required("grant_type")?;
        if grant_type != "client_credentials" {
            let text = format!("The app requested an unsupported grant type '{grant_type}'.");
            return Err(Refusal::new(400, "unsupported_grant_type", 70_003, text));
        }
        let client_id = required("client_id")?;
        let scope = required("scope")?;
        let resource = scope.strip_suffix("/.default").ok_or_else(|| {
            let text = format!(
                "The provided value for scope {scope} is not valid. Client credential flows must have a scope value \
                 with /.default suffixed to the resource identifier (application ID URI)."
            );
            Refusal::new(400, "invalid_scope", 1_002_012, text)
        })?;
        let known = if settings.graph_resources.is_empty() {
            resource.starts_with("https://") || resource.starts_with("http://")
        } else {
            settings.graph_resources.contains(resource)
        };
        if !known {
            let text = format!("The resource principal named {resource} was not found in the tenant named {tenant}.");
            return Err(Refusal::new(400, "invalid_resource", 500_011, text));
        }
        let app = apps.get(&key(client_id)).ok_or_else(|| {
            let text = format!(
                "Application with identifier '{client_id}' was not found in the directory '{tenant}'. This can happen \
                 if the application has not been installed by the administrator of the tenant or consented to by any \
                 user in the tenant. You may have sent your authentication request to the wrong tenant."
            );
            Refusal::new(400, "unauthorized_client", 700_016, text)
        })?;
        let secret = parameter("client_secret").ok_or_else(|| {
            let text = "'client_assertion', 'client_secret' or 'request' is required for the 'client_credentials' \
                        grant type.";
            Refusal::new(401, "invalid_client", 7_000_216, text.to_owned())
        })?;
        if secret != app.secret.expose() {
            let text = format!(
                "Invalid client secret provided. Ensure the secret being sent in the request is the client secret \
                 value, not the client secret ID, for a secret added to app '{client_id}'."
            );
            return Err(Refusal::new(401, "invalid_client", 7_000_215, text));
        }
        if app.secret_expired {
            let text = format!(
                "The provided client secret keys for app '{client_id}' are expired. Visit the Azure portal to create \
                 new keys for your app, or consider using certificate credentials for added security."
            );
            return Err(Refusal::new(401, "invalid_client", 7_000_222, text));
        }
        let grant = Grant {
            tenant: key(tenant),
            client_id: key(client_id),
            permission: app.permission,
            expires: now.after(settings.scaled(settings.access_token_lifetime)),
        };
        let token = random.text(12);
        self.grants.insert(token.clone(), grant);
        Ok(token)
    }
}

/// How tenants and apps are looked up: GUIDs are compared without regard to case.
pub(crate) fn key(id: &str) -> String {
    id.to_ascii_lowercase()
}

fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

struct Refusal {
    status: u16,
    error: &'static str,
    code: u32,
    text: String,
}

impl Refusal {
    fn new(status: u16, error: &'static str, code: u32, text: String) -> Self {
        Self { status, error, code, text }
    }

    fn respond(&self, ids: &RequestIds, at: Timestamp, random: &mut Random) -> Response<AnswerBody> {
        let Self { status, error, code, text } = self;
        let trace_id = &ids.request_id;
        let correlation_id = ids.client_request_id.clone().unwrap_or_else(|| random.guid());
        let timestamp = at.strftime("%Y-%m-%d %H:%M:%SZ").to_string();
        let description = format!(
            "AADSTS{code}: {text} Trace ID: {trace_id} Correlation ID: {correlation_id} Timestamp: {timestamp}"
        );
        let body = json!({
            "error": error,
            "error_description": description,
            "error_codes": [code],
            "timestamp": timestamp,
            "trace_id": trace_id,
            "correlation_id": correlation_id,
            "error_uri": format!("https://login.microsoftonline.com/error?code={code}"),
        });
        respond(*status, "application/json; charset=utf-8", body.to_string())
    }
}
