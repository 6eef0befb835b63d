//! `heartbeat_url`: called every minute while all is well, and not otherwise, so that whoever waits
//! for it notices a service that has died as well as one that cannot send.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;

use crate::journey::health::{self, Lately, Level, MAX_WAIT};
use crate::model::exchange::{Body, Reply, Request};
use crate::model::secret::Secret;
use crate::model::status::Status;
use crate::world::clock::Clock;
use crate::world::endpoint::Endpoint;

/// How often.
const EVERY: Duration = Duration::from_mins(1);
/// A call that takes longer has failed; the next one comes soon.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// No progress for this long ends a call.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Beats for ever. `status` asks how things stand; where it gets no answer the loop has ended, and
/// so has this.
pub(super) async fn beat<S>(
    url: &Secret,
    clock: &impl Clock,
    endpoint: &impl Endpoint,
    status: impl Fn() -> S,
) where
    S: Future<Output = Option<Status>>,
{
    let mut was_heard = true;
    while let Some(status) = status().await {
        let health = health::judge(&status, Lately::default(), MAX_WAIT, clock.now().wall);
        if health.level() < Level::Critical {
            let fault = call(url, endpoint).await;
            match &fault {
                Some(why) if was_heard => {
                    tracing::warn!(%why, "the heartbeat was not heard; files are sent all the same");
                }
                None if !was_heard => tracing::info!("the heartbeat is heard again"),
                Some(_) | None => {}
            }
            was_heard = fault.is_none();
        }
        clock.sleep(EVERY).await;
    }
}

/// Why it was not heard.
async fn call(url: &Secret, endpoint: &impl Endpoint) -> Option<String> {
    let request = Request {
        method: "GET",
        url: url.clone(),
        headers: Vec::new(),
        body: Body::Bytes(Bytes::new()),
        connect_timeout: CONNECT_TIMEOUT,
        timeout: TIMEOUT,
    };
    match endpoint.send(request).await {
        Reply::Answer(answer) if matches!(answer.status, 200..=299) => None,
        Reply::Answer(answer) => Some(format!("the server answered {}", answer.status)),
        Reply::NoAnswer { cause, .. } => Some(cause.plain),
        Reply::Changed => unreachable!("an empty body is what it is"),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::sync::Mutex;

    use super::*;
    use crate::model::exchange::Answer;
    use crate::model::status::RouteStatus;
    use crate::model::time::{Now, Tick, Wall};

    /// No time passes but by waiting.
    #[derive(Default)]
    struct Waits(Mutex<Vec<Duration>>);

    impl Clock for Waits {
        fn now(&self) -> Now {
            let waited: Duration = self.0.lock().unwrap().iter().sum();
            Now { wall: Wall(0).plus(waited), tick: Tick(0).plus(waited) }
        }
        async fn sleep(&self, span: Duration) {
            self.0.lock().unwrap().push(span);
        }
        fn dice(&self) -> f64 {
            0.0
        }
    }

    /// Answers with these statuses in turn.
    struct Server {
        answers: Mutex<Vec<u16>>,
        asked: Mutex<Vec<String>>,
    }

    impl Endpoint for Server {
        async fn send(&self, request: Request) -> Reply {
            let line = format!("{} {}", request.method, request.url.reveal());
            self.asked.lock().unwrap().push(line);
            let status = self.answers.lock().unwrap().remove(0);
            Reply::Answer(Answer { status, ..Answer::default() })
        }
    }

    #[tokio::test]
    async fn it_is_called_each_minute_while_nothing_is_critical_whatever_it_answers() {
        let held = RouteStatus { held: 1, ..RouteStatus::default() };
        let gone = RouteStatus { folder_fault: Some("gone".into()), ..RouteStatus::default() };
        let of = |route: &RouteStatus| Status { routes: vec![route.clone()], ..Status::default() };
        let well = Status::default();
        // The last comes first.
        let story = vec![of(&held), well.clone(), of(&gone), of(&gone), of(&held), well];
        let (calls, beats) = (4, story.len());
        let story = RefCell::new(story);
        let server =
            Server { answers: Mutex::new(vec![200, 500, 302, 204]), asked: Mutex::default() };
        let clock = Waits::default();
        let status = || std::future::ready(story.borrow_mut().pop());
        beat(&Secret::new("https://beat.example/x"), &clock, &server, status).await;
        assert_eq!(*server.asked.lock().unwrap(), vec!["GET https://beat.example/x"; calls]);
        assert_eq!(*clock.0.lock().unwrap(), vec![EVERY; beats]);
    }
}
