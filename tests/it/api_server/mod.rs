//! The API server in memory (tests/api_server) is compared with the real one: both get the same script of requests, and
//! have to give the same answers.
//!
//! The control plane is one of the test's own, because the script compacts its etcd and restarts its API server.

mod alike;
mod script;
mod sides;
mod steps;

use serde_json::{Value, json};

use crate::support::Plane;
use alike::{Labels, differences};
use sides::{Answered, Side};
use steps::{Known, Request, Step};

/// The script has at least so many requests.
const AT_LEAST: usize = 100;

/// Both sides, and the differences so far.
struct Comparison {
    real: Side,
    in_memory: Side,
    labels: [Labels; 2],
    differences: Vec<String>,
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_in_memory_answers_as_the_real_one_does() {
    let plane = Plane::own().await;
    let mut comparison = Comparison {
        real: Side::real(plane.clone()).await,
        in_memory: Side::in_memory(),
        labels: Default::default(),
        differences: Vec::new(),
    };
    let mut requests = 0;
    for group in script::groups() {
        let (before, differed) = (requests, comparison.differences.len());
        for step in &group.steps {
            requests += usize::from(matches!(step, Step::Ask(_) | Step::Watch(..)));
            comparison.take(step).await;
        }
        let differ = comparison.differences.len() - differed;
        println!("{}: {} requests, {differ} answered differently", group.name, requests - before);
    }
    println!("{requests} requests");
    plane.shutdown().await;
    let differences = &comparison.differences;
    assert!(differences.is_empty(), "{} differ:\n{}", differences.len(), differences.join("\n"));
    assert!(requests >= AT_LEAST, "{requests}");
}

impl Comparison {
    async fn take(&mut self, step: &Step) {
        match step {
            Step::Ask(request) => {
                let answers = tokio::join!(self.real.ask(request), self.in_memory.ask(request));
                self.compare_answers(request, answers.into());
            }
            Step::Watch(name, request) => {
                let answers = tokio::join!(self.real.ask(request), self.in_memory.ask(request));
                match answers {
                    (Answered::Watch(real), Answered::Watch(in_memory)) => {
                        self.real.watches.insert(name, real);
                        self.in_memory.watches.insert(name, in_memory);
                    }
                    answers => self.compare_answers(request, answers.into()),
                }
            }
            Step::Read(name, kind, object) => {
                let is_last = |event: &Value| event["type"] == *kind && event["object"]["metadata"]["name"] == *object;
                self.compare_events(name, is_last).await;
            }
            Step::ReadAll(name) => self.compare_events(name, |_| false).await,
            Step::Compact => {
                self.real.compact().await;
                self.in_memory.compact().await;
            }
        }
    }

    fn compare_answers(&mut self, request: &Request, answers: [Answered; 2]) {
        let [real, in_memory] = answers.map(|answered| match answered {
            Answered::Once(code, body) => (code, body),
            Answered::Watch(_) => (200, json!("a watch")),
        });
        let mut wrong = Vec::new();
        if real.0 != request.code {
            wrong.push(format!("the script expects {}, the real one answers {} {}", request.code, real.0, real.1));
        }
        match request.known {
            Some(Known { code, why, field }) => {
                if in_memory.0 != code {
                    wrong.push(format!("in memory {}, and not {code} because {why}", in_memory.0));
                }
                let named = real.1.pointer("/details/causes/0/field").and_then(Value::as_str).unwrap_or_default();
                if named != field {
                    wrong.push(format!("the script expects {field}, the real one names {named}"));
                }
            }
            None if real.0 != in_memory.0 => {
                wrong.push(format!("real {} {}, in memory {} {}", real.0, real.1, in_memory.0, in_memory.1))
            }
            None => {
                let [one, other] = &mut self.labels;
                wrong.extend(differences(&one.comparable(real.1), &other.comparable(in_memory.1)));
            }
        }
        self.note(&format!("{} {}", request.method, request.path), &request.body, &wrong);
    }

    async fn compare_events(&mut self, name: &str, is_last: impl Fn(&Value) -> bool + Copy) {
        let [one, other] = &mut self.labels;
        let (real, in_memory) =
            tokio::join!(events(&mut self.real, name, is_last), events(&mut self.in_memory, name, is_last));
        let (real, in_memory) = (one.comparable_events(real), other.comparable_events(in_memory));
        let mut wrong = differences(&real, &in_memory);
        if real == json!([]) {
            wrong.push("no events".into());
        }
        self.note(&format!("the watch {name}"), &"", &wrong);
    }

    fn note(&mut self, what: &str, body: &dyn std::fmt::Debug, wrong: &[String]) {
        if !wrong.is_empty() {
            self.differences.push(format!("{what} {body:?}\n    {}", wrong.join("\n    ")));
        }
    }
}

/// The events of a watch, up to the last one that the script waits for.
async fn events(side: &mut Side, name: &str, is_last: impl Fn(&Value) -> bool) -> Vec<Value> {
    let mut events = Vec::new();
    // A watch that did not begin has been reported as a difference already.
    let Some(mut watch) = side.watches.remove(name) else { return events };
    while let Some(event) = watch.next().await {
        let is_over = is_last(&event);
        events.push(event);
        if is_over {
            break;
        }
    }
    events
}
