//! Measures what an emulation in process costs: histories per second, each with an emulation of its own, and calls per
//! second. Time is real here, so that it can be measured.

use axum::body::Bytes;
use axum::http::{Method, Request};
use graph_emulator::{Clock, Emulation, Random, Settings, TokenFile};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::error::Error;
use std::time::{Duration, Instant};

const TENANT: &str = "0a1b2c3d-0000-4000-8000-000000000001";
const HOST: &str = "https://graph.example";
/// Rounds of a list, a GET, an update and a sync in each history; a token request and a create come before them.
const ROUNDS: usize = 12;
const MEASURED: Duration = Duration::from_secs(3);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let wall: Timestamp = "2026-01-01T00:00:00Z".parse()?;
    let file = TokenFile::with_inner("Contoso", "2027-01-01T00:00:00Z".parse()?, "inner").text();
    let (begun, mut histories, mut calls, mut constructing) = (Instant::now(), 0_u32, 0_u32, Duration::ZERO);
    while begun.elapsed() < MEASURED {
        let before = Instant::now();
        let settings = Settings { list_lag: Duration::from_secs(20), ..Settings::default() };
        let emulation = Emulation::new(settings, Clock::starting_at(wall), Random::seeded(u64::from(histories)));
        emulation.add_app(TENANT, "client", "secret");
        constructing += before.elapsed();
        history(&emulation, &file).await?;
        calls += emulation.look(|view| u32::try_from(view.requests().count()))?;
        histories += 1;
    }
    let seconds = begun.elapsed().as_secs_f64();
    let (per_history, per_call) = (seconds / f64::from(histories), seconds / f64::from(calls));
    println!("{histories} histories of {} calls in {seconds:.1} s", calls / histories);
    println!("{:.0} histories per second, {:.0} µs each", 1.0 / per_history, per_history * 1e6);
    println!("{:.0} calls per second, {:.1} µs each", 1.0 / per_call, per_call * 1e6);
    println!("{:.1} µs to make an emulation", (constructing / histories).as_secs_f64() * 1e6);
    Ok(())
}

async fn history(emulation: &Emulation, file: &str) -> Result<(), Box<dyn Error>> {
    let form = "grant_type=client_credentials&client_id=client&client_secret=secret&scope=https%3A%2F%2Fgraph.example%2F.default";
    let request = Request::post(format!("{HOST}/{TENANT}/oauth2/v2.0/token"))
        .header("content-type", "application/x-www-form-urlencoded")
        .body(form)?;
    let answer: Value = serde_json::from_slice(emulation.call(request).await?.body().bytes())?;
    let bearer = format!("Bearer {}", answer["access_token"].as_str().unwrap_or_default());
    let collection = format!("{HOST}/v1.0/deviceAppManagement/vppTokens");
    let created =
        graph(emulation, &bearer, Method::POST, &collection, &json!({"token": file, "appleId": "a@b"})).await?;
    let entity = format!("{collection}/{}", created["id"].as_str().unwrap_or_default());
    let sync = format!("{entity}/syncLicenses");
    for _ in 0..ROUNDS {
        graph(emulation, &bearer, Method::GET, &collection, &Value::Null).await?;
        graph(emulation, &bearer, Method::GET, &entity, &Value::Null).await?;
        graph(emulation, &bearer, Method::PATCH, &entity, &json!({"countryOrRegion": "de"})).await?;
        graph(emulation, &bearer, Method::POST, &sync, &Value::Null).await?;
    }
    Ok(())
}

async fn graph(
    emulation: &Emulation,
    bearer: &str,
    method: Method,
    url: &str,
    body: &Value,
) -> Result<Value, Box<dyn Error>> {
    let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
    let request = Request::builder()
        .method(method)
        .uri(url)
        .header("authorization", bearer)
        .header("content-length", body.len())
        .body(body)?;
    let answer = emulation.call(request).await?;
    if !answer.status().is_success() {
        return Err(format!("{url}: {}", answer.status()).into());
    }
    Ok(serde_json::from_slice(&answer.into_body().into_bytes()?)?)
}
