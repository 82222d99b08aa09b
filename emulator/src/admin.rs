//! The admin API under `/emulator/`: what the methods of [`crate::Emulator`] are for tests, it is for the binary. It is
//! not part of Graph, asks for no access token, and shows no secret.

use crate::effects::{By, Effect};
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

/// Time for the answer to be sent before the port goes down.
const LAST_WORDS: Duration = Duration::from_millis(100);

const ROUTES: [&str; 20] = [
    "GET /emulator",
    "GET, PATCH /emulator/settings",
    "GET, DELETE /emulator/requests (?after=<sequence>)",
    "GET, DELETE /emulator/counters (DELETE clears the requests too)",
    "GET /emulator/effects (?after=<sequence>): the writes that were carried out",
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
    "POST /emulator/tenants/{tenant}/vppTokens/{id}/hide?seconds=<how long>",
    "Bodies and answers are JSON; names are those of Graph",
];

type Handle = State<Arc<Server>>;

/// Why the admin API refuses a request.
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
        .route("/emulator/effects", get(effects))
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
        .route(&format!("{collection}/{{id}}/hide"), post(hide))
        .fallback(|| async { no_such("route; GET /emulator lists them") })
        .with_state(Arc::clone(server))
}

async fn settings(State(server): Handle) -> Json<Settings> {
    Json(server.emulation().settings())
}

async fn change_settings(
    State(server): Handle,
    Json(changes): Json<Map<String, Value>>,
) -> Result<Json<Settings>, Refusal> {
    server.emulation().shared().write(|state| {
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
    let newer = |view: &View<'_>| view.requests().filter(|record| record.sequence > after).cloned().collect();
    Json(server.emulation().look(newer))
}

async fn effects(State(server): Handle, Query(After { after }): Query<After>) -> Json<Vec<Effect>> {
    let newer = |view: &View<'_>| view.effects().filter(|effect| effect.sequence > after).cloned().collect();
    Json(server.emulation().look(newer))
}

async fn counters(State(server): Handle) -> Json<Value> {
    let emulation = server.emulation();
    Json(json!({"operations": emulation.counters(), "writes": emulation.writes()}))
}

async fn clear(State(server): Handle) -> StatusCode {
    server.emulation().clear_requests();
    StatusCode::NO_CONTENT
}

async fn faults(State(server): Handle) -> Json<Vec<FaultStatus>> {
    Json(server.emulation().faults())
}

async fn inject(State(server): Handle, Json(fault): Json<Fault>) -> (StatusCode, Json<Value>) {
    let number = server.emulation().inject(fault).number();
    (StatusCode::CREATED, Json(json!({"number": number})))
}

async fn remove_faults(State(server): Handle) -> StatusCode {
    server.emulation().clear_faults();
    StatusCode::NO_CONTENT
}

async fn remove_fault(State(server): Handle, Path(number): Path<u64>) -> Result<StatusCode, Refusal> {
    let done = server.emulation().shared().write(|state| state.faults.remove(number));
    if done { Ok(StatusCode::NO_CONTENT) } else { Err(no_such("fault")) }
}

async fn release(State(server): Handle, Path(number): Path<u64>) -> Result<StatusCode, Refusal> {
    let done = server.emulation().shared().write(|state| state.faults.release(number));
    if done { Ok(StatusCode::NO_CONTENT) } else { Err(no_such("fault")) }
}

async fn apps(State(server): Handle) -> Json<Vec<Value>> {
    Json(server.emulation().shared().read(|state| {
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
    server.emulation().add_app(&app.tenant, &app.client_id, app.secret);
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
    server.emulation().shared().write(|state| {
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
    server.emulation().revoke_access_tokens();
    StatusCode::NO_CONTENT
}

async fn clear_throttle(State(server): Handle) -> StatusCode {
    server.emulation().clear_throttle();
    StatusCode::NO_CONTENT
}

#[derive(Deserialize)]
struct HowLong {
    seconds: f64,
}

impl HowLong {
    fn duration(&self) -> Result<Duration, Refusal> {
        Duration::try_from_secs_f64(self.seconds)
            .map_err(|error| Refusal(StatusCode::BAD_REQUEST, format!("seconds: {error}")))
    }
}

/// Answers, then goes down, and comes back by itself: nobody could ask for that while it is down.
async fn down(State(server): Handle, Query(how_long): Query<HowLong>) -> Result<StatusCode, Refusal> {
    let how_long = how_long.duration()?;
    let outage = Arc::clone(&server);
    server.emulation().spawn(async move {
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
    Json(server.emulation().entities(&tenant))
}

async fn entity(State(server): Handle, Path((tenant, id)): Path<(String, String)>) -> Result<Json<Entity>, Refusal> {
    let found = server.emulation().entity(&tenant, &id);
    found.map(Json).ok_or_else(|| no_such("entity"))
}

async fn create(
    State(server): Handle,
    Path(tenant): Path<String>,
    Json(new): Json<NewEntity>,
) -> (StatusCode, Json<Entity>) {
    (StatusCode::CREATED, Json(server.emulation().create_by_hand(&tenant, new)))
}

async fn edit(
    State(server): Handle,
    Path((tenant, id)): Path<(String, String)>,
    Json(mut changes): Json<Map<String, Value>>,
) -> Result<Json<Entity>, Refusal> {
    server.emulation().shared().write(|state| {
        if changes.get("state").is_some_and(Value::is_null) {
            changes.remove("state");
            state.force_state(&tenant, &id, None);
        }
        let before = View::of(state).entity(&tenant, &id).ok_or_else(|| no_such("entity"))?;
        let wrong = |error: serde_json::Error| Refusal(StatusCode::BAD_REQUEST, error.to_string());
        let after = changed(&before, changes).map_err(wrong)?;
        if after != before {
            state.edit(&tenant, &id, |entity| *entity = after);
        }
        View::of(state).entity(&tenant, &id).map(Json).ok_or_else(|| no_such("entity"))
    })
}

/// An entity with some of its properties replaced.
fn changed(entity: &Entity, changes: Map<String, Value>) -> serde_json::Result<Entity> {
    let mut all = serde_json::to_value(entity)?;
    if let Value::Object(all) = &mut all {
        all.extend(changes);
    }
    serde_json::from_value(all)
}

async fn remove(State(server): Handle, Path((tenant, id)): Path<(String, String)>) -> Result<StatusCode, Refusal> {
    if server.emulation().remove(&tenant, &id) { Ok(StatusCode::NO_CONTENT) } else { Err(no_such("entity")) }
}

async fn sync(State(server): Handle, Path((tenant, id)): Path<(String, String)>) -> Result<StatusCode, Refusal> {
    match server.emulation().shared().write(|state| state.sync(&tenant, &id, By::Hand)) {
        Some(Ok(_)) => Ok(StatusCode::ACCEPTED),
        Some(Err(_)) => Err(Refusal(StatusCode::CONFLICT, "a sync is in progress".to_owned())),
        None => Err(no_such("entity")),
    }
}

async fn hide(
    State(server): Handle,
    Path((tenant, id)): Path<(String, String)>,
    Query(how_long): Query<HowLong>,
) -> Result<StatusCode, Refusal> {
    let done = server.emulation().hide(&tenant, &id, how_long.duration()?);
    if done { Ok(StatusCode::NO_CONTENT) } else { Err(no_such("entity")) }
}
