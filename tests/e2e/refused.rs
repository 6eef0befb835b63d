//! What `check` and `run` refuse before they touch anything.

use std::fs;

use super::scene::{Plan, Scene, names};

/// Both commands end with 78, name every one of these, and leave the folders as they were.
fn check(scene: &Scene, expected: &[&str]) {
    let before = (names(scene.dir.path()), names(&scene.path("root")), names(&scene.inbox()));
    for arguments in [&["check"][..], &["run"], &["run", "--once"]] {
        let ended = scene.ask(arguments);
        let config = fs::read_to_string(scene.path("config.toml")).unwrap();
        assert_eq!(ended.code, Some(78), "{arguments:?} of\n{config}\n{ended:?}");
        for text in expected {
            let said = format!("{}{}", ended.out, ended.err);
            assert!(said.contains(text), "{text:?} is not in\n{said}\nof\n{config}");
        }
    }
    let after = (names(scene.dir.path()), names(&scene.path("root")), names(&scene.inbox()));
    assert_eq!(before, after);
    assert_eq!(scene.sim.counts().requests, 0);
}

#[test]
fn every_fault_of_a_config_is_said_at_once_with_key_line_and_hint() {
    let scene = Scene::of(Plan::default());
    scene.drop_file("a.json", "{}");
    scene.configure(
        "auto_route = true\ndrain_for = 'soon'",
        "concurrency = 0\nin_doubt = 'holds'",
        "[route.orders]\nmax_body = 'big'\nclient_secret = 'x'",
    );
    let text = fs::read_to_string(scene.path("config.toml")).unwrap();
    let line = |key: &str| {
        let at = text.lines().position(|line| line.starts_with(key)).unwrap() + 1;
        format!("line {at}: ")
    };
    check(
        &scene,
        &[
            "auto_route",
            "did you mean",
            "auto_routes",
            &line("auto_route "),
            "drain_for",
            &line("drain_for"),
            "defaults.concurrency",
            &line("concurrency"),
            "defaults.in_doubt",
            &line("in_doubt"),
            "route.orders.max_body",
            &line("max_body"),
            "route.orders.client_secret",
        ],
    );
}

#[test]
fn our_own_files_inside_a_watched_folder_are_refused() {
    let check_top = |top: &'static str, tables: &'static str, expected: &str| {
        let scene = Scene::of(Plan { top, tables, ..Plan::default() });
        check(&scene, &[expected]);
    };
    check_top("state_dir = 'root/state'", "", "state_dir");
    check_top("state_dir = 'root/orders/state'", "", "state_dir");
    check_top("", "[route.orders]\nheaders = { X = { file = 'root/orders/s' } }", "root/orders/s");
    let scene = Scene::of(Plan::default());
    let config = fs::read_to_string(scene.path("config.toml")).unwrap();
    let log = config.replace("[log]\n", "[log]\nfile = 'root/orders/log'\n");
    fs::write(scene.path("config.toml"), log).unwrap();
    check(&scene, &["log.file"]);
    let secret = config.replace("file = 'secret'", "file = 'root/orders/secret'");
    fs::write(scene.path("config.toml"), secret).unwrap();
    check(&scene, &["credential.inbound.client_secret"]);
}

#[test]
fn targets_and_roots_that_overlap_a_drop_folder_are_refused() {
    let check_tables = |tables: &'static str, expected: &[&str]| {
        let scene = Scene::of(Plan { tables, ..Plan::default() });
        check(&scene, expected);
    };
    check_tables("[route.orders]\nsent = '{dir}/root/stock'\n[route.stock]", &["sent"]);
    check_tables("[route.orders]\nfailed = '{dir}/root/stock/x'\n[route.stock]", &["failed"]);
    check_tables("[route.orders]\nheld = '{dir}/root'\n[route.stock]", &["held"]);
    check_tables("[route.orders]\nsent = '.'", &["sent"]);
    check_tables(
        "[route.one]\nfolder = '{dir}/one'\n[route.two]\nfolder = '{dir}/one/two'",
        &["route.two.folder"],
    );
    check_tables("[route.outer]\nfolder = '{dir}'", &["route.outer.folder"]);
}
