//! Signing in to Entra ID with the client credentials flow.

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokio::time::Instant;

use super::error::{ErrorKind, GraphError, retry_after, shortened};
use super::scrub::Scrubber;
use super::{AppRegistration, Transport};

/// An access token is renewed this long before it ends, so that none ends during a request.
const RENEW_BEFORE: Duration = Duration::from_secs(120);
/// No access token is kept longer, whatever lifetime the server gives it.
const MAX_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// What the operator signs in with.
#[derive(Clone, Debug)]
pub(crate) enum Credential {
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
    transport: &Transport,
    app: &AppRegistration,
    credential: &Credential,
) -> Result<AccessToken, GraphError> {
    let scope = format!("{}/.default", app.endpoints.graph);
    let Credential::ClientSecret(secret) = credential;
    let form = [
        ("grant_type", "client_credentials"),
        ("client_id", &app.client_id),
        ("client_secret", secret.expose_secret()),
        ("scope", &scope),
    ];
    let began = Instant::now();
    let url = format!("{}/{}/oauth2/v2.0/token", app.endpoints.login, app.tenant_id);
    let request = transport.request(reqwest::Method::POST, &url).form(&form);
    let received = transport.exchange(request).await.map_err(signing_in)?;
    let status = received.status;
    let wait = received.header("Retry-After").and_then(|text| retry_after(&text));
    let body = received.body.map_err(signing_in)?;
    if status.is_success() {
        let granted: Granted = serde_json::from_slice(&body)
            .map_err(|_| signing_in(GraphError::bad_answer("it has no access token").with_status(status.as_u16())))?;
        let lifetime = Duration::from_secs(granted.expires_in).min(MAX_LIFETIME);
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
        let detail = match code.and_then(meaning) {
            Some(meaning) => meaning.to_owned(),
            None => match sentence(&answer.error_description) {
                "" => scrubber.scrub(&answer.error),
                sentence => scrubber.scrub(sentence),
            },
        };
        error.sentence = shortened(&format!("Entra ID refuses to sign in: {detail}"));
    }
    error
}

/// The sentence of an `error_description`. The ids and the time that follow it, on the same line or on lines of their own,
/// change with every request.
fn sentence(description: &str) -> &str {
    let first_line = description.trim().lines().next().unwrap_or_default();
    let ids = ["Trace ID:", "Correlation ID:", "Timestamp:"].into_iter().filter_map(|id| first_line.find(id)).min();
    first_line.get(..ids.unwrap_or(first_line.len())).unwrap_or_default().trim()
}

/// What an administrator has to do about Entra's most frequent refusals.
fn meaning(code: u64) -> Option<&'static str> {
    Some(match code {
        7000215 => "the client secret is wrong (the secret's value is needed, not its id)",
        7000222 => "the client secret has expired; create a new one for the app registration",
        700016 => "there is no application with this clientId in the tenant",
        90002 => "there is no tenant with this tenantId in this cloud",
        7000112 => "the application is disabled in the tenant; enable its enterprise application",
        7000229 => "the application has no service principal in the tenant; grant it admin consent",
        53003 => "a Conditional Access policy blocks the application; exclude it from that policy",
        700027 => "the certificate is not registered; add it to the app registration",
        700024 => "the assertion is not valid at this time; check the clock of the operator's machine",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_it_means() {
        for (code, part) in [
            (7000215, "secret is wrong"),
            (7000222, "has expired"),
            (700016, "clientId"),
            (90002, "tenantId"),
            (7000112, "disabled"),
            (7000229, "consent"),
            (53003, "Conditional Access"),
            (700027, "certificate"),
            (700024, "clock"),
        ] {
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
    fn what_entra_adds_for_its_support_is_cut_off() {
        let ids =
            |n: u32| format!("Trace ID: trace-{n} Correlation ID: correlation-{n} Timestamp: 2025-01-0{n} 10:00:00Z");
        for between in [" ", "\r\n", "  "] {
            let refusal = |n| {
                let description = format!("AADSTS50105: The app is not assigned.{between}{}", ids(n));
                let body = serde_json::json!({
                    "error": "invalid_grant", "error_description": description, "error_codes": [50105], "trace_id": n.to_string(),
                });
                denied(400, body.to_string().as_bytes(), None, &Scrubber::default())
            };
            let (first, second) = (refusal(1), refusal(2));
            assert_eq!(
                first.sentence, "Entra ID refuses to sign in: AADSTS50105: The app is not assigned.",
                "{between:?}"
            );
            assert_eq!(
                (first.summary(), &first.code),
                (second.summary(), &second.code),
                "another try, the same problem"
            );
        }
        let only_ids = format!(r#"{{"error":"invalid_client","error_description":"{}"}}"#, ids(1));
        let error = denied(401, only_ids.as_bytes(), None, &Scrubber::default());
        assert_eq!(error.sentence, "Entra ID refuses to sign in: invalid_client");
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
