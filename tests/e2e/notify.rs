//! What systemd hears of the service, over a socket as systemd's own.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use rustix::process::Signal;

use super::scene::{Plan, Scene};

/// Waits for the next message in which a line begins like this; what came before is passed over, if
/// no line of it begins like one of these.
fn hear(socket: &UnixDatagram, wanted: &str, not_before: &[&str]) -> String {
    loop {
        let mut buffer = [0; 4_096];
        let read = socket.recv(&mut buffer).unwrap_or_else(|error| panic!("{wanted}: {error}"));
        let message = String::from_utf8(buffer[..read].to_vec()).unwrap();
        if message.lines().any(|line| line.starts_with(wanted)) {
            return message;
        }
        for line in message.lines() {
            let is_early = not_before.iter().any(|early| line.starts_with(early));
            assert!(!is_early, "{line} before {wanted}");
        }
    }
}

#[test]
fn systemd_hears_of_the_start_of_life_of_a_reload_and_of_the_end_in_this_order() {
    let mut scene = Scene::of(Plan::default());
    let socket = UnixDatagram::bind(scene.path("notify")).unwrap();
    socket.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
    scene.environment = vec![
        ("NOTIFY_SOCKET", scene.path("notify").display().to_string()),
        ("WATCHDOG_USEC", "600000".to_owned()),
    ];
    scene.launch();
    let first = hear(&socket, "READY=1", &["RELOADING", "STOPPING", "WATCHDOG"]);
    assert!(first.contains("STATUS=1 route"), "{first}");
    for _ in 0..3 {
        hear(&socket, "WATCHDOG=1", &["READY", "RELOADING", "STOPPING"]);
    }
    scene.drop_file("broken.json", "{]");
    hear(&socket, "STATUS=1 route, 1 failed", &["READY", "RELOADING", "STOPPING"]);

    scene.signal(Signal::HUP);
    let reloading = hear(&socket, "RELOADING=1", &["READY", "STOPPING"]);
    assert!(reloading.contains("MONOTONIC_USEC="), "{reloading}");
    hear(&socket, "READY=1", &["RELOADING", "STOPPING"]);

    // A config that is not taken is no reload.
    scene.configure("nonsense = 1", "", "");
    scene.signal(Signal::HUP);
    scene.until("it is refused", |scene| scene.log().contains("the old one stays"));
    hear(&socket, "WATCHDOG=1", &["READY", "RELOADING", "STOPPING"]);

    scene.signal(Signal::TERM);
    hear(&socket, "STOPPING=1", &["READY", "RELOADING"]);
    assert_eq!(scene.ended(), Some(0));
    socket.set_nonblocking(true).unwrap();
    let mut rest = [0; 4_096];
    while let Ok(read) = socket.recv(&mut rest) {
        let message = String::from_utf8_lossy(&rest[..read]);
        assert!(!message.contains("READY=1"), "{message}");
    }
}
