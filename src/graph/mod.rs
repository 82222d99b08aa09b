//! The only module that sends requests to Microsoft: operations on the tokens of one tenant, credentials and errors.
//! Does not use Kubernetes. Each call is one request (a list: one per page). The only retry is one after a 401, which
//! means that nothing was executed.

mod entra;
mod error;
mod scrub;
mod transport;
mod wire;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::Method;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::time::Instant;

pub(crate) use entra::Credential;
pub(crate) use error::ErrorKind;
pub use error::GraphError;
pub use transport::{Received, Transport};
pub(crate) use wire::{Entity, TokenPatch, TokenPost, TokenSettings};

use crate::api::{Cloud, GraphApi};
use crate::clock::Random;
use entra::AccessToken;
use scrub::Scrubber;

/// More pages than this are a fault of the server: 100 tokens a page are 100,000 tokens.
const MAX_PAGES: usize = 1000;

/// Where to sign in and where Graph is, without a trailing slash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoints {
    /// The login host of Entra ID, as a URL.
    pub login: String,
    /// The host of Microsoft Graph, as a URL.
    pub graph: String,
}

impl Endpoints {
    /// The hosts of a Microsoft cloud, as Microsoft documents them under "national clouds".
    pub(crate) fn of(cloud: Cloud) -> Self {
        let (login, graph) = match cloud {
            Cloud::Global => ("login.microsoftonline.com", "graph.microsoft.com"),
            Cloud::USGovernment => ("login.microsoftonline.us", "graph.microsoft.us"),
            Cloud::USGovernmentDoD => ("login.microsoftonline.us", "dod-graph.microsoft.us"),
            Cloud::China => ("login.partner.microsoftonline.cn", "microsoftgraph.chinacloudapi.cn"),
        };
        Self { login: format!("https://{login}"), graph: format!("https://{graph}") }
    }
}

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Operation {
    /// Signing in.
    Authenticate,
    /// A page of the list.
    List,
    /// One token read.
    Get,
    /// A token created.
    Create,
    /// A token changed or renewed.
    Update,
    /// A token deleted.
    Delete,
    /// `syncLicenses`.
    Sync,
}

impl Operation {
    /// The name in logs and metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Authenticate => "authenticate",
            Self::List => "list",
            Self::Get => "get",
            Self::Create => "create",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Sync => "syncLicenses",
        }
    }
}

/// Called for every request that ended: what it was for, the HTTP status (none without an answer), how long it took.
pub(crate) type Meter = Arc<dyn Fn(Operation, Option<u16>, Duration) + Send + Sync>;

/// An app registration in a tenant, and how Graph is reached.
#[derive(Clone, Debug)]
pub(crate) struct AppRegistration {
    /// Where.
    pub endpoints: Endpoints,
    /// Which API.
    pub api: GraphApi,
    /// The Entra tenant.
    pub tenant_id: String,
    /// The application.
    pub client_id: String,
}

/// The tokens of one tenant, as one app registration sees them. Uses `deviceAppManagement/vppTokens` of v1.0 or beta.
pub(crate) struct GraphClient {
    app: AppRegistration,
    transport: Transport,
    random: Random,
    credential: Mutex<Credentials>,
    access: tokio::sync::Mutex<Access>,
    meter: Meter,
}

/// The credential, and how often it or its permissions have changed.
struct Credentials {
    credential: Arc<Credential>,
    generation: u64,
}

/// The access token, or why there is none.
#[derive(Default)]
struct Access {
    token: Option<(u64, AccessToken)>,
    failure: Option<(Instant, u64, GraphError)>,
}

impl std::fmt::Debug for GraphClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GraphClient").field("app", &self.app).finish_non_exhaustive()
    }
}

impl GraphClient {
    /// A client for one tenant and app registration. Sends nothing yet.
    pub(crate) fn new(
        app: AppRegistration,
        credential: Credential,
        transport: Transport,
        random: Random,
        meter: Meter,
    ) -> Self {
        Self {
            app,
            transport,
            random,
            credential: Mutex::new(Credentials { credential: Arc::new(credential), generation: 0 }),
            access: tokio::sync::Mutex::default(),
            meter,
        }
    }

    /// Uses another credential from now on, with a freshly fetched access token.
    pub(crate) fn set_credential(&self, credential: Credential) {
        let mut credentials = self.credentials();
        credentials.credential = Arc::new(credential);
        credentials.generation += 1;
    }

    /// Forgets the access token: it contains the roles, so a new permission needs a new one.
    pub(crate) fn forget_access_token(&self) {
        self.credentials().generation += 1;
    }

    /// All tokens of the tenant: every page, or an error.
    ///
    /// # Errors
    /// When any page fails, or a page points to another host.
    pub(crate) async fn list(&self) -> Result<Vec<Entity>, GraphError> {
        let mut entities = Vec::new();
        let mut url = self.collection();
        for _ in 0..MAX_PAGES {
            let answer = self.call(Operation::List, Method::GET, &url, None, &Scrubber::default()).await?;
            let page = answer.read::<Page<'_>>()?;
            let Some(Page { value: Some(items), next_link }) = page else {
                return Err(GraphError::bad_answer("the list has no \"value\""));
            };
            entities.reserve_exact(items.len());
            for item in items {
                let entity = serde_json::from_str(item.get()).ok().and_then(|item| Entity::read(&item));
                entities.push(entity.ok_or_else(|| GraphError::bad_answer("a listed token has no id"))?);
            }
            match next_link.as_ref().and_then(Value::as_str) {
                None => return Ok(entities),
                Some(next) if self.is_own(next) && next != url => url = next.to_owned(),
                Some(_) => return Err(GraphError::bad_answer("the link to the next page leads elsewhere")),
            }
        }
        Err(GraphError::bad_answer("the list does not end"))
    }

    /// One token.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when it is not there; others when the request fails.
    pub(crate) async fn get(&self, id: &str) -> Result<Entity, GraphError> {
        let answer = self.call(Operation::Get, Method::GET, &self.item(id), None, &Scrubber::default()).await?;
        answer.entity()?.ok_or_else(|| GraphError::bad_answer("the token has no id"))
    }

    /// Creates a token. Not idempotent: after an error that [may have been executed](GraphError::maybe_executed),
    /// search for the token before trying again.
    ///
    /// # Errors
    /// When the request fails.
    pub(crate) async fn create(&self, token: &TokenPost) -> Result<Entity, GraphError> {
        let scrubber = Scrubber::new(token.sensitive.iter());
        let answer =
            self.call(Operation::Create, Method::POST, &self.collection(), Some(token.body()), &scrubber).await?;
        answer.entity()?.ok_or_else(|| GraphError::bad_answer("the new token has no id"))
    }

    /// Changes a token: only the fields in `patch`. Graph may answer with the token, or with nothing.
    ///
    /// # Errors
    /// When the request fails.
    pub(crate) async fn update(&self, id: &str, patch: &TokenPatch) -> Result<Option<Entity>, GraphError> {
        let scrubber = Scrubber::new(patch.sensitive.iter());
        let answer = self.call(Operation::Update, Method::PATCH, &self.item(id), Some(patch.body()), &scrubber).await?;
        answer.entity()
    }

    /// Starts a sync of the token's licences and apps. Graph may answer with the token, or with nothing.
    ///
    /// # Errors
    /// When the request fails.
    pub(crate) async fn sync(&self, id: &str) -> Result<Option<Entity>, GraphError> {
        let url = format!("{}/syncLicenses", self.item(id));
        let answer = self.call(Operation::Sync, Method::POST, &url, None, &Scrubber::default()).await?;
        answer.entity()
    }

    /// Deletes a token. One that does not exist any more counts as deleted.
    ///
    /// # Errors
    /// When the request fails.
    pub(crate) async fn delete(&self, id: &str) -> Result<(), GraphError> {
        match self.call(Operation::Delete, Method::DELETE, &self.item(id), None, &Scrubber::default()).await {
            Err(error) if error.kind != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn collection(&self) -> String {
        let version = match self.app.api {
            GraphApi::V1 => "v1.0",
            GraphApi::Beta => "beta",
        };
        format!("{}/{version}/deviceAppManagement/vppTokens", self.app.endpoints.graph)
    }

    /// Ids are GUIDs. Anything else in an id from Graph is encoded, so that it can't change the path.
    fn item(&self, id: &str) -> String {
        let id: String = id
            .bytes()
            .map(|byte| match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => char::from(byte).to_string(),
                _ => format!("%{byte:02X}"),
            })
            .collect();
        format!("{}/{id}", self.collection())
    }

    /// The access token is sent nowhere else.
    fn is_own(&self, url: &str) -> bool {
        url.strip_prefix(&self.app.endpoints.graph).is_some_and(|rest| rest.starts_with('/'))
    }

    async fn call(
        &self,
        operation: Operation,
        method: Method,
        url: &str,
        body: Option<Value>,
        scrubber: &Scrubber,
    ) -> Result<Answer, GraphError> {
        let access = self.access_token().await?;
        match self.send(operation, method.clone(), url, body.as_ref(), &access, scrubber).await {
            Err(error) if error.kind == ErrorKind::Unauthorized => {
                self.forget(&access).await;
                let access = self.access_token().await?;
                self.send(operation, method, url, body.as_ref(), &access, scrubber).await
            }
            outcome => outcome,
        }
    }

    async fn access_token(&self) -> Result<SecretString, GraphError> {
        let waiting_since = Instant::now();
        let mut access = self.access.lock().await;
        let (credential, generation) = {
            let credentials = self.credentials();
            (Arc::clone(&credentials.credential), credentials.generation)
        };
        if let Some((_, token)) = access.token.as_ref().filter(|(of, token)| *of == generation && token.is_fresh()) {
            return Ok(token.secret.clone());
        }
        // A call that waited while signing in failed gets that failure, and does not try again.
        if let Some((at, of, error)) = &access.failure
            && *at > waiting_since
            && *of == generation
        {
            return Err(error.clone());
        }
        let began = Instant::now();
        let outcome = entra::authenticate(&self.transport, &self.app, &credential).await;
        let status = match &outcome {
            Ok(_) => Some(200),
            Err(error) => error.status,
        };
        self.finished(Operation::Authenticate, status, began);
        match outcome {
            Ok(token) => {
                let secret = token.secret.clone();
                *access = Access { token: Some((generation, token)), failure: None };
                Ok(secret)
            }
            Err(error) => {
                access.failure = Some((Instant::now(), generation, error.clone()));
                Err(error)
            }
        }
    }

    /// Another call may have fetched a new access token meanwhile, which is kept.
    async fn forget(&self, used: &SecretString) {
        let mut access = self.access.lock().await;
        if access.token.as_ref().is_some_and(|(_, token)| token.secret.expose_secret() == used.expose_secret()) {
            access.token = None;
        }
    }

    fn credentials(&self) -> std::sync::MutexGuard<'_, Credentials> {
        self.credential.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn send(
        &self,
        operation: Operation,
        method: Method,
        url: &str,
        body: Option<&Value>,
        access: &SecretString,
        scrubber: &Scrubber,
    ) -> Result<Answer, GraphError> {
        let began = Instant::now();
        let client_request_id = self.random.uuid().to_string();
        let mut request = self
            .transport
            .request(method.clone(), url)
            .bearer_auth(access.expose_secret())
            .header("client-request-id", &client_request_id);
        request = match body {
            Some(body) => request.json(body),
            None if method == Method::POST => request.header("Content-Length", "0"),
            None => request,
        };
        let outcome = receive(&self.transport, request, &client_request_id, &scrubber.and(access)).await;
        let status = match &outcome {
            Ok(answer) => Some(answer.status),
            Err(error) => error.status,
        };
        tracing::debug!(
            operation = operation.as_str(),
            status,
            client_request_id,
            request_id = match &outcome {
                Ok(answer) => answer.request_id.as_deref(),
                Err(error) => error.request_id.as_deref(),
            },
            "graph request"
        );
        self.finished(operation, status, began);
        outcome
    }

    fn finished(&self, operation: Operation, status: Option<u16>, began: Instant) {
        (self.meter)(operation, status, began.elapsed());
    }
}

/// The answer to a request that was carried out.
struct Answer {
    status: u16,
    request_id: Option<String>,
    /// JSON, or white space.
    text: Vec<u8>,
}

impl Answer {
    /// Reads it; none of an empty one.
    fn read<'a, T: Deserialize<'a>>(&'a self) -> Result<Option<T>, GraphError> {
        if self.text.iter().all(u8::is_ascii_whitespace) {
            return Ok(None);
        }
        match serde_json::from_slice(&self.text) {
            Ok(value) => Ok(Some(value)),
            // It is JSON, and not what it should be.
            Err(error) if error.is_data() => Ok(None),
            Err(_) => Err(GraphError::bad_answer("the answer is not JSON").with_status(self.status)),
        }
    }

    /// The token that it shows, if it does.
    fn entity(&self) -> Result<Option<Entity>, GraphError> {
        Ok(self.read()?.as_ref().and_then(wire::read_answer))
    }
}

/// A page of a list. Its tokens are read one after the other: many lists may be under way.
#[derive(Deserialize)]
struct Page<'a> {
    #[serde(borrow)]
    value: Option<Vec<&'a RawValue>>,
    #[serde(rename = "@odata.nextLink")]
    next_link: Option<Value>,
}

async fn receive(
    transport: &Transport,
    request: reqwest::RequestBuilder,
    client_request_id: &str,
    scrubber: &Scrubber,
) -> Result<Answer, GraphError> {
    let received = transport.exchange(request).await?;
    let status = received.status;
    let request_id = received.header("request-id").or_else(|| Some(client_request_id.to_owned()));
    let retry_after = received.header("Retry-After").and_then(|text| error::retry_after(&text));
    if !status.is_success() {
        let text = received.body.unwrap_or_default();
        return Err(GraphError::of_answer(status.as_u16(), &text, retry_after, request_id, scrubber));
    }
    // The request was carried out; only the answer is lost.
    let text = received.body?;
    Ok(Answer { status: status.as_u16(), request_id, text })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "https://graph.example";

    /// Lists with these answers to come, after one that signs in.
    async fn list(answers: &[&str]) -> Result<Vec<String>, String> {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let signs_in = r#"{"access_token":"access","expires_in":3599}"#;
        let answers: Vec<Vec<u8>> = [signs_in].iter().chain(answers).map(|text| text.as_bytes().to_vec()).collect();
        let answers = Arc::new(Mutex::new(answers.into_iter()));
        let exchange = move |_| {
            let body = answers.lock().unwrap().next().unwrap();
            let answer = Received {
                status: reqwest::StatusCode::OK,
                headers: reqwest::header::HeaderMap::new(),
                body: Ok(body),
            };
            Box::pin(std::future::ready(Ok(answer))) as futures::future::BoxFuture<'static, _>
        };
        let app = AppRegistration {
            endpoints: Endpoints { login: "https://login.example".into(), graph: HOST.into() },
            api: GraphApi::V1,
            tenant_id: "tenant".into(),
            client_id: "client".into(),
        };
        let transport = Transport::in_process(reqwest::Client::new(), Arc::new(exchange));
        let credential = Credential::ClientSecret(SecretString::from("secret"));
        let client = GraphClient::new(app, credential, transport, Random::seeded(1), Arc::new(|_, _, _| {}));
        let listed = client.list().await.map_err(|error| error.sentence)?;
        Ok(listed.into_iter().map(|entity| entity.id).collect())
    }

    #[tokio::test]
    async fn a_list_is_all_of_its_pages_or_an_error() {
        let page = |ids: &[&str], next: &str| {
            let value: Vec<Value> =
                ids.iter().map(|id| serde_json::json!({ "id": id, "more": { "a": [1] } })).collect();
            serde_json::json!({ "@odata.context": "x", "value": value, "@odata.nextLink": format!("{HOST}{next}") })
                .to_string()
        };
        let (first, elsewhere) = (page(&["a", "b"], "/2"), page(&["a"], ".evil.example/2"));
        let last = r#"{"value":[{"id":"c"}]}"#;
        assert_eq!(list(&[&first, last]).await, Ok(vec!["a".into(), "b".into(), "c".into()]));
        assert_eq!(list(&[r#"{"value":[],"@odata.nextLink":null}"#]).await, Ok(Vec::new()));
        for (answers, says) in [
            ([first.as_str(), "{"], "not JSON"),
            (["<html>", ""], "not JSON"),
            ([&first, " "], "has no \"value\""),
            ([r#"{"error":{}}"#, ""], "has no \"value\""),
            ([r#"{"value":{"id":"a"}}"#, ""], "has no \"value\""),
            ([r#"{"value":[{"id":"a"},{"state":"valid"}]}"#, ""], "has no id"),
            ([r#"{"value":[null]}"#, ""], "has no id"),
            ([&elsewhere, ""], "leads elsewhere"),
        ] {
            let error = list(&answers).await.unwrap_err();
            assert!(error.contains(says), "{answers:?}: {error}");
        }
    }
}
