//! What the tests share: an emulator with one app, a client for it, and token files.

#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

pub(crate) mod in_process;

use graph_emulator::{Emulator, Settings, TokenFile};
use jiff::Timestamp;
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use std::time::Duration;

pub(crate) const TENANT: &str = "0a1b2c3d-0000-4000-8000-000000000001";
pub(crate) const APP: &str = "0a1b2c3d-0000-4000-8000-00000000000a";
pub(crate) const SECRET: &str = "a-secret-that-nobody-may-see";
/// Longer than anything here takes, and short enough to fail within a person's patience.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// An emulator, and a client that is signed in.
pub(crate) struct World {
    pub emulator: Emulator,
    pub client: Client,
    pub token: String,
    /// The version of Graph that the calls use: `v1.0` until a test sets `beta`.
    pub api: &'static str,
}

/// One answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub status: StatusCode,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// `error.code` and the innermost sentence.
    pub(crate) fn error(&self) -> (String, String) {
        let error = self.json()["error"].take();
        let message = error["message"].as_str().unwrap().to_owned();
        let nested = serde_json::from_str::<Value>(&message);
        let sentence = nested.map_or(message, |nested| nested["Message"].as_str().unwrap().to_owned());
        (error["code"].as_str().unwrap().to_owned(), sentence)
    }
}

pub(crate) async fn send(request: RequestBuilder) -> reqwest::Result<Answer> {
    let response = request.send().await?;
    let (status, headers) = (response.status(), response.headers().clone());
    Ok(Answer { status, headers, text: response.text().await? })
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings::default();
        change(&mut settings);
        let emulator = Emulator::start(settings).await.unwrap();
        emulator.add_app(TENANT, APP, SECRET);
        let mut world = Self { emulator, client: Client::new(), token: String::new(), api: "v1.0" };
        world.sign_in().await;
        world.emulator.clear_requests();
        world
    }

    pub(crate) async fn sign_in(&mut self) {
        let answer = self.ask_token(TENANT, &good_form()).await;
        self.token = answer.json()["access_token"].as_str().unwrap().to_owned();
    }

    pub(crate) async fn ask_token(&self, tenant: &str, form: &[(&str, &str)]) -> Answer {
        let url = format!("{}/{tenant}/oauth2/v2.0/token", self.emulator.url());
        send(self.client.post(url).form(form)).await.unwrap()
    }

    pub(crate) fn collection(&self) -> String {
        format!("{}/{}/deviceAppManagement/vppTokens", self.emulator.url(), self.api)
    }

    pub(crate) fn request(&self, method: Method, url: &str) -> RequestBuilder {
        self.client.request(method, url).bearer_auth(&self.token)
    }

    pub(crate) fn list_request(&self) -> RequestBuilder {
        self.request(Method::GET, &self.collection())
    }

    pub(crate) fn create_request(&self, body: &Value) -> RequestBuilder {
        self.request(Method::POST, &self.collection()).json(body)
    }

    pub(crate) fn sync_request(&self, id: &str) -> RequestBuilder {
        let url = format!("{}/{id}/syncLicenses", self.collection());
        self.request(Method::POST, &url).header("content-length", "0")
    }

    pub(crate) async fn list(&self) -> Answer {
        send(self.list_request()).await.unwrap()
    }

    pub(crate) async fn get(&self, id: &str) -> Answer {
        send(self.request(Method::GET, &format!("{}/{id}", self.collection()))).await.unwrap()
    }

    pub(crate) async fn create(&self, body: &Value) -> Answer {
        send(self.create_request(body)).await.unwrap()
    }

    pub(crate) async fn patch(&self, id: &str, body: &Value) -> Answer {
        send(self.request(Method::PATCH, &format!("{}/{id}", self.collection())).json(body)).await.unwrap()
    }

    pub(crate) async fn delete(&self, id: &str) -> Answer {
        send(self.request(Method::DELETE, &format!("{}/{id}", self.collection()))).await.unwrap()
    }

    pub(crate) async fn sync(&self, id: &str) -> Answer {
        send(self.sync_request(id)).await.unwrap()
    }

    /// Creates an entity and returns its id.
    pub(crate) async fn created(&self, apple_id: &str) -> String {
        let answer = self.create(&body(&file(), apple_id)).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.json()["id"].as_str().unwrap().to_owned()
    }
}

pub(crate) fn good_form() -> Vec<(&'static str, &'static str)> {
    vec![
        ("grant_type", "client_credentials"),
        ("client_id", APP),
        ("client_secret", SECRET),
        ("scope", "https://graph.microsoft.com/.default"),
    ]
}

/// A file that is good for years.
pub(crate) fn file() -> TokenFile {
    TokenFile::new("Contoso", expiry())
}

pub(crate) fn expiry() -> Timestamp {
    "2047-01-22T17:32:07Z".parse().unwrap()
}

pub(crate) fn expired() -> Timestamp {
    "2020-01-22T17:32:07Z".parse().unwrap()
}

pub(crate) fn body(file: &TokenFile, apple_id: &str) -> Value {
    json!({
        "@odata.type": "#microsoft.graph.vppToken",
        "token": file.text(),
        "appleId": apple_id,
        "vppTokenAccountType": "business",
        "countryOrRegion": "de",
        "automaticallyUpdateApps": true,
    })
}
