//! Signing in to Entra ID with the client credentials flow.

use std::time::{Duration, Instant};

use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::error::{ErrorKind, GraphError, retry_after, shortened};
use super::scrub::Scrubber;
use super::{Endpoints, header};

/// An access token is renewed this long before it ends, so that no request carries one that ends on the way.
const RENEW_BEFORE: Duration = Duration::from_secs(120);
/// No access token is kept longer, whatever the server says.
const LONGEST_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// What the operator signs in with.
#[derive(Clone, Debug)]
pub enum Credential {
    /// A client secret of the app registration.
    ClientSecret(SecretString),
}

/// An access token and when it is to be renewed.
pub(super) struct AccessToken {
    pub(super) secret: SecretString,
    renew_at: Instant,
}

impl AccessToken {
    pub(super) fn is_fresh(&self) -> bool {
        Instant::now() < self.renew_at
    }
}

#[derive(Deserialize)]
struct Granted {
    access_token: SecretString,
    expires_in: u64,
}

#[derive(Deserialize)]
struct Denied {
    error: String,
    #[serde(default)]
    error_description: String,
    #[serde(default)]
    error_codes: Vec<u64>,
    #[serde(default)]
    trace_id: Option<String>,
}

pub(super) async fn authenticate(
    http: &reqwest::Client,
    endpoints: &Endpoints,
    tenant_id: &str,
    client_id: &str,
    credential: &Credential,
) -> Result<AccessToken, GraphError> {
    let scope = format!("{}/.default", endpoints.graph);
    let Credential::ClientSecret(secret) = credential;
    let form = [
        ("grant_type", "client_credentials"),
        ("client_id", client_id),
        ("client_secret", secret.expose_secret()),
        ("scope", &scope),
    ];
    let began = Instant::now();
    let url = format!("{}/{tenant_id}/oauth2/v2.0/token", endpoints.login);
    let response =
        http.post(url).form(&form).send().await.map_err(|error| signing_in(GraphError::of_transport(&error)))?;
    let status = response.status();
    let wait = header(&response, "Retry-After").and_then(|text| retry_after(&text));
    let body = response.bytes().await.map_err(|error| signing_in(GraphError::of_transport(&error)))?;
    if status.is_success() {
        let granted: Granted = serde_json::from_slice(&body)
            .map_err(|_| signing_in(GraphError::bad_answer("it has no access token").with_status(status.as_u16())))?;
        let lifetime = Duration::from_secs(granted.expires_in).min(LONGEST_LIFETIME);
        let renew_at = began + lifetime.saturating_sub(RENEW_BEFORE.min(lifetime / 2));
        return Ok(AccessToken { secret: granted.access_token, renew_at });
    }
    let scrubber = Scrubber::new([secret].into_iter());
    Err(denied(status.as_u16(), &body, wait, &scrubber))
}

/// Without an access token nothing was sent to Graph, so nothing there can have been carried out.
fn signing_in(error: GraphError) -> GraphError {
    GraphError {
        kind: ErrorKind::Unreachable,
        sentence: format!("signing in to Entra ID failed: {}", error.sentence),
        ..error
    }
}

fn denied(status: u16, body: &[u8], wait: Option<Duration>, scrubber: &Scrubber) -> GraphError {
    let answer: Option<Denied> = serde_json::from_slice(body).ok();
    let kind = match status {
        429 => ErrorKind::Throttled,
        400..=499 if answer.is_some() => ErrorKind::Credentials,
        _ => ErrorKind::Unreachable,
    };
    let mut error = signing_in(GraphError::of_answer(status, &[], wait, None, scrubber));
    error.kind = kind;
    if let Some(answer) = answer {
        let code = answer.error_codes.first().copied();
        error.code = code.map(|code| format!("AADSTS{code}"));
        error.request_id = answer.trace_id.map(|id| shortened(&scrubber.scrub(&id)));
        let said = match code.and_then(meaning) {
            Some(meaning) => meaning.to_owned(),
            // The first line is the sentence; the others are ids and times.
            None => scrubber.scrub(answer.error_description.lines().next().unwrap_or(&answer.error)),
        };
        error.sentence = shortened(&format!("Entra ID refuses to sign in: {said}"));
    }
    error
}

/// What an administrator has to do about Entra's most frequent refusals.
fn meaning(code: u64) -> Option<&'static str> {
    Some(match code {
        7000215 => "the client secret is wrong (the secret's value is needed, not its id)",
        7000222 => "the client secret has expired; create a new one for the app registration",
        700016 => "there is no application with this clientId in the tenant",
        90002 => "there is no tenant with this tenantId in this cloud",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_it_means() {
        for (code, part) in
            [(7000215, "secret is wrong"), (7000222, "has expired"), (700016, "clientId"), (90002, "tenantId")]
        {
            let body = format!(
                r#"{{"error":"invalid_client","error_description":"AADSTS{code}: hunter2hunter2\r\nTrace ID: x","error_codes":[{code}],"trace_id":"t"}}"#
            );
            let error = denied(401, body.as_bytes(), None, &Scrubber::default());
            assert_eq!(error.kind, ErrorKind::Credentials);
            assert_eq!(error.code, Some(format!("AADSTS{code}")));
            assert!(error.sentence.contains(part), "{}", error.sentence);
        }
    }

    #[test]
    fn an_unknown_refusal_shows_its_first_line_without_the_secret() {
        let body = br#"{"error":"invalid_request","error_description":"AADSTS1: bad 'hunter2hunter2'\r\nTrace ID: x","error_codes":[1]}"#;
        let scrubber = Scrubber::new([SecretString::from("hunter2hunter2")].iter());
        let error = denied(400, body, None, &scrubber);
        assert_eq!(error.sentence, "Entra ID refuses to sign in: AADSTS1: bad '[redacted]'");
    }

    #[test]
    fn an_outage_is_not_a_refusal() {
        for (status, body, kind) in [
            (500, "", ErrorKind::Unreachable),
            (404, "<html>", ErrorKind::Unreachable),
            (429, "{}", ErrorKind::Throttled),
        ] {
            assert_eq!(denied(status, body.as_bytes(), None, &Scrubber::default()).kind, kind, "{status}");
        }
    }
}
