//! The admin API under `/emulator/`: for the binary what the methods of [`crate::Emulator`] are for tests. It is not part
//! of Graph, asks for no access token, and shows no secret.

use crate::entity::{Entity, NewEntity};
use crate::entra::Permission;
use crate::faults::{Fault, FaultStatus};
use crate::log::RequestRecord;
use crate::secret::Secret;
use crate::server::Server;
use crate::settings::Settings;
use crate::state::View;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, patch, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// Time for the answer to get out before the port goes down.
const LAST_WORDS: Duration = Duration::from_millis(100);

const ROUTES: [&str; 18] = [
    "GET /emulator",
    "GET, PATCH /emulator/settings",
    "GET, DELETE /emulator/requests (?after=<sequence>)",
    "GET, DELETE /emulator/counters (DELETE clears the requests too)",
    "GET, POST, DELETE /emulator/faults",
    "DELETE /emulator/faults/{number}",
    "POST /emulator/faults/{number}/release",
    "GET, POST /emulator/apps",
    "PATCH /emulator/apps/{tenant}/{clientId}",
    "POST /emulator/revoke",
    "POST /emulator/throttle/clear",
    "POST /emulator/down?seconds=<how long>",
    "GET, POST /emulator/tenants/{tenant}/vppTokens",
    "GET /emulator/tenants/{tenant}/vppTokens/{id}",
    "PATCH /emulator/tenants/{tenant}/vppTokens/{id} (a null state is worked out again)",
    "DELETE /emulator/tenants/{tenant}/vppTokens/{id}",
    "POST /emulator/tenants/{tenant}/vppTokens/{id}/sync",
    "Bodies and answers are JSON; names are those of Graph",
];

type Handle = State<Arc<Server>>;

/// Why the admin API says no.
struct Refusal(StatusCode, String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, Json(json!({"error": self.1}))).into_response()
    }
}

fn no_such(what: &str) -> Refusal {
    Refusal(StatusCode::NOT_FOUND, format!("there is no such {what}"))
}

/// The routes.
pub(crate) fn router(server: &Arc<Server>) -> Router {
    let collection = "/emulator/tenants/{tenant}/vppTokens";
    Router::new()
        .route("/emulator", get(|| async { Json(ROUTES) }))
        .route("/emulator/settings", get(settings).patch(change_settings))
        .route("/emulator/requests", get(requests).delete(clear))
        .route("/emulator/counters", get(counters).delete(clear))
        .route("/emulator/faults", get(faults).post(inject).delete(remove_faults))
        .route("/emulator/faults/{number}", axum::routing::delete(remove_fault))
        .route("/emulator/faults/{number}/release", post(release))
        .route("/emulator/apps", get(apps).post(add_app))
        .route("/emulator/apps/{tenant}/{client_id}", patch(change_app))
        .route("/emulator/revoke", post(revoke))
        .route("/emulator/throttle/clear", post(clear_throttle))
        .route("/emulator/down", post(down))
        .route(collection, get(entities).post(create))
        .route(&format!("{collection}/{{id}}"), get(entity).patch(edit).delete(remove))
        .route(&format!("{collection}/{{id}}/sync"), post(sync))
        .fallback(|| async { no_such("route; GET /emulator lists them") })
        .with_state(Arc::clone(server))
}

async fn settings(State(server): Handle) -> Json<Settings> {
    Json(server.shared().read(|state| state.settings.clone()))
}

async fn change_settings(
    State(server): Handle,
    Json(changes): Json<Map<String, Value>>,
) -> Result<Json<Settings>, Refusal> {
    server.shared().write(|state| {
        let changed = state.settings.with(changes).map_err(|why| Refusal(StatusCode::BAD_REQUEST, why))?;
        state.settings = changed.clone();
        Ok(Json(changed))
    })
}

#[derive(Deserialize)]
struct After {
    #[serde(default)]
    after: u64,
}

async fn requests(State(server): Handle, Query(After { after }): Query<After>) -> Json<Vec<RequestRecord>> {
    Json(server.shared().read(|state| state.log.records().filter(|record| record.sequence > after).cloned().collect()))
}

async fn counters(State(server): Handle) -> Json<Value> {
    Json(server.shared().read(|state| {
        let view = View::of(state);
        json!({"operations": state.log.counters(), "writes": view.writes()})
    }))
}

async fn clear(State(server): Handle) -> StatusCode {
    server.shared().write(|state| state.log.clear());
    StatusCode::NO_CONTENT
}

async fn faults(State(server): Handle) -> Json<Vec<FaultStatus>> {
    Json(server.shared().read(|state| state.faults.status()))
}

async fn inject(State(server): Handle, Json(fault): Json<Fault>) -> (StatusCode, Json<Value>) {
    let number = server.shared().write(|state| state.faults.inject(fault));
    (StatusCode::CREATED, Json(json!({"number": number})))
}

async fn remove_faults(State(server): Handle) -> StatusCode {
    server.shared().write(|state| {
        for status in state.faults.status() {
            state.faults.remove(status.number);
        }
    });
    StatusCode::NO_CONTENT
}

async fn remove_fault(State(server): Handle, Path(number): Path<u64>) -> Result<StatusCode, Refusal> {
    let done = server.shared().write(|state| state.faults.remove(number));
    if done { Ok(StatusCode::NO_CONTENT) } else { Err(no_such("fault")) }
}

async fn release(State(server): Handle, Path(number): Path<u64>) -> Result<StatusCode, Refusal> {
    let done = server.shared().write(|state| state.faults.release(number));
    if done { Ok(StatusCode::NO_CONTENT) } else { Err(no_such("fault")) }
}

async fn apps(State(server): Handle) -> Json<Vec<Value>> {
    Json(server.shared().read(|state| {
        let show = |(tenant, client_id, app): (&str, &str, &crate::entra::App)| {
            json!({
                "tenant": tenant,
                "clientId": client_id,
                "secretExpired": app.secret_expired,
                "permission": app.permission,
            })
        };
        state.directory.apps().map(show).collect()
    }))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct NewApp {
    tenant: String,
    client_id: String,
    secret: Secret,
}

async fn add_app(State(server): Handle, Json(app): Json<NewApp>) -> StatusCode {
    server.shared().write(|state| state.directory.add_app(&app.tenant, &app.client_id, app.secret));
    StatusCode::CREATED
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct AppChange {
    secret: Option<Secret>,
    secret_expired: Option<bool>,
    permission: Option<Permission>,
}

async fn change_app(
    State(server): Handle,
    Path((tenant, client_id)): Path<(String, String)>,
    Json(change): Json<AppChange>,
) -> Result<StatusCode, Refusal> {
    server.shared().write(|state| {
        let app = state.directory.app_mut(&tenant, &client_id).ok_or_else(|| no_such("app"))?;
        if let Some(secret) = change.secret {
            app.secret = secret;
            app.secret_expired = false;
        }
        app.secret_expired = change.secret_expired.unwrap_or(app.secret_expired);
        app.permission = change.permission.unwrap_or(app.permission);
        Ok(StatusCode::NO_CONTENT)
    })
}

async fn revoke(State(server): Handle) -> StatusCode {
    server.shared().write(|state| state.directory.revoke_all());
    StatusCode::NO_CONTENT
}

async fn clear_throttle(State(server): Handle) -> StatusCode {
    server.shared().write(|state| state.limiter.clear());
    StatusCode::NO_CONTENT
}

#[derive(Deserialize)]
struct HowLong {
    seconds: f64,
}

/// Answers, then goes down, and comes back by itself: nobody could ask for that while it is down.
async fn down(State(server): Handle, Query(HowLong { seconds }): Query<HowLong>) -> Result<StatusCode, Refusal> {
    let how_long = Duration::try_from_secs_f64(seconds)
        .map_err(|error| Refusal(StatusCode::BAD_REQUEST, format!("seconds: {error}")))?;
    let outage = Arc::clone(&server);
    server.spawn(async move {
        sleep(LAST_WORDS).await;
        if let Err(error) = outage.down().await {
            tracing::error!(%error, "can't keep the port while down");
        }
        sleep(how_long).await;
        if let Err(error) = outage.up().await {
            tracing::error!(%error, "can't listen again");
        }
    });
    Ok(StatusCode::ACCEPTED)
}

async fn entities(State(server): Handle, Path(tenant): Path<String>) -> Json<Vec<Entity>> {
    Json(server.shared().read(|state| View::of(state).entities(&tenant)))
}

async fn entity(State(server): Handle, Path((tenant, id)): Path<(String, String)>) -> Result<Json<Entity>, Refusal> {
    let found = server.shared().read(|state| View::of(state).entity(&tenant, &id));
    found.map(Json).ok_or_else(|| no_such("entity"))
}

async fn create(
    State(server): Handle,
    Path(tenant): Path<String>,
    Json(new): Json<NewEntity>,
) -> (StatusCode, Json<Entity>) {
    let entity = server.shared().write(|state| {
        let now = state.now();
        let (collection, settings) = state.collection(&tenant);
        collection.create_by_hand(new, now, settings)
    });
    (StatusCode::CREATED, Json(entity))
}

async fn edit(
    State(server): Handle,
    Path((tenant, id)): Path<(String, String)>,
    Json(mut changes): Json<Map<String, Value>>,
) -> Result<Json<Entity>, Refusal> {
    server.shared().write(|state| {
        let now = state.now();
        let (collection, settings) = state.collection(&tenant);
        if changes.get("state").is_some_and(Value::is_null) {
            changes.remove("state");
            collection.force_state(&id, None, now);
        }
        let before = collection.get(&id, now, settings).ok_or_else(|| no_such("entity"))?;
        let wrong = |error: serde_json::Error| Refusal(StatusCode::BAD_REQUEST, error.to_string());
        let Value::Object(mut all) = serde_json::to_value(&before).map_err(wrong)? else {
            return Err(no_such("entity"));
        };
        all.extend(changes);
        let after: Entity = serde_json::from_value(Value::Object(all)).map_err(wrong)?;
        collection.edit(&id, |entity| *entity = after, now, settings);
        collection.get(&id, now, settings).map(Json).ok_or_else(|| no_such("entity"))
    })
}

async fn remove(State(server): Handle, Path((tenant, id)): Path<(String, String)>) -> Result<StatusCode, Refusal> {
    let done = server.shared().write(|state| state.collection(&tenant).0.remove(&id));
    if done { Ok(StatusCode::NO_CONTENT) } else { Err(no_such("entity")) }
}

async fn sync(State(server): Handle, Path((tenant, id)): Path<(String, String)>) -> Result<StatusCode, Refusal> {
    let begun = server.shared().write(|state| {
        let now = state.now();
        let (collection, settings) = state.collection(&tenant);
        collection.sync(&id, now, settings)
    });
    match begun {
        Some(Ok(_)) => Ok(StatusCode::ACCEPTED),
        Some(Err(_)) => Err(Refusal(StatusCode::CONFLICT, "a sync is in progress".to_owned())),
        None => Err(no_such("entity")),
    }
}
