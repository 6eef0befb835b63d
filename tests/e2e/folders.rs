//! Which folder is a route, and what becomes of folders that come and go.

use std::fs;

use super::scene::{Plan, Scene, files, names};

fn arrived_at(scene: &Scene) -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> =
        scene.arrived().into_iter().map(|(vanity, name, _)| (vanity, name)).collect();
    all.sort();
    all
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(one, other)| ((*one).to_owned(), (*other).to_owned())).collect()
}

#[test]
fn a_file_with_a_done_marker_waits_for_it_and_takes_it_along() {
    let scene = Scene::running(Plan { defaults: "done_marker = '{name}.done'", ..Plan::default() });
    scene.drop_file("a.json", "{}");
    scene.drop_file("b.json", "{}");
    scene.until("both wait", |scene| scene.waiting("no-marker") == 2);
    assert_eq!(scene.posts(), 0);
    scene.drop_file("a.json.done", "");
    scene.until_in("sent", &["a.json", "a.json.done"]);
    assert_eq!(files(&scene.inbox()), ["b.json"]);
    assert_eq!(scene.posts(), 1);
    scene.verify();
}

#[test]
fn each_folder_at_the_place_of_vanity_is_a_route_also_one_that_comes_later() {
    let mut scene = Scene::of(Plan {
        tables: "[route.erp]\nfolder = 'erp/{vanity}/export'",
        ..Plan::default()
    });
    for folder in ["root/erp/orders/export", "root/erp/stock/export"] {
        fs::create_dir_all(scene.path(folder)).unwrap();
    }
    scene.start();
    for (vanity, name) in [("orders", "a.json"), ("stock", "b.json")] {
        scene.drop_into(&scene.path(format!("root/erp/{vanity}/export")), name, "{}");
    }
    scene.until("both are sent", |scene| scene.posts() == 2);
    fs::create_dir_all(scene.path("root/erp/prices/export")).unwrap();
    scene.drop_into(&scene.path("root/erp/prices/export"), "c.json", "{}");
    scene.until("the later one is sent", |scene| {
        names(&scene.path("root/erp/prices/export/sent")) == ["c.json"]
    });
    let expected = [("orders", "a.json"), ("prices", "c.json"), ("stock", "b.json")];
    assert_eq!(arrived_at(&scene), pairs(&expected));
    scene.verify();
}

#[test]
fn two_routes_share_a_folder_and_a_file_that_both_want_stays() {
    let scene = Scene::running(Plan {
        tables: "[route.orders]\ninclude = ['order*.json']\n\
                 [route.stock]\nfolder = 'orders'\nvanity = 'stock'\n\
                 include = ['stock*.json', '*-both.json']\n",
        ..Plan::default()
    });
    for name in ["order1.json", "stock1.json", "order-both.json", "other.json"] {
        scene.drop_file(name, "{}");
    }
    scene.until("two are sent", |scene| scene.posts() == 2);
    scene.until_in("sent", &["order1.json", "stock1.json"]);
    scene.until("the others are counted", |scene| {
        let waiting = |reason: &str| -> u64 {
            let routes = scene.status().unwrap().routes;
            routes.iter().filter_map(|route| route.waiting.get(reason)).map(|it| it.files).sum()
        };
        (waiting("two-routes"), waiting("ignored")) == (1, 1)
    });
    assert_eq!(files(&scene.inbox()), ["order-both.json", "other.json"]);
    let expected = [("orders", "order1.json"), ("stock", "stock1.json")];
    assert_eq!(arrived_at(&scene), pairs(&expected));
    scene.verify();
}

#[test]
fn a_new_subfolder_becomes_a_route_while_the_service_runs_and_others_are_said_to_be_none() {
    let scene = Scene::running(Plan::default());
    fs::create_dir(scene.path("root/Stock-2")).unwrap();
    scene.drop_into(&scene.path("root/Stock-2"), "a.json", "{}");
    fs::create_dir(scene.path("root/no vanity")).unwrap();
    scene.drop_into(&scene.path("root/no vanity"), "b.json", "{}");
    scene.drop_into(&scene.path("root"), "c.json", "{}");
    let sent = scene.path("root/Stock-2/sent");
    scene.until("the new folder's file is sent", |_| names(&sent) == ["a.json"]);
    scene.until("the others are said", |scene| {
        let alerts = scene.status().unwrap().alerts.join("\n");
        scene.log().contains("no vanity") && alerts.contains("c.json")
    });
    assert_eq!(arrived_at(&scene), pairs(&[("stock-2", "a.json")]));
    assert_eq!(files(&scene.path("root/no vanity")), ["b.json"]);
    scene.verify();
}

#[test]
fn a_root_that_vanishes_is_no_empty_root_and_goes_on_when_it_is_back() {
    let mut scene =
        Scene::running(Plan { top: "poll_every = '1s'\nsweep_every = '1s'", ..Plan::default() });
    assert_eq!(scene.ask(&["pause", "orders"]).code, Some(0));
    scene.drop_file("a.json", "{}");
    scene.until("it waits", |scene| scene.waiting("paused") == 1);
    fs::rename(scene.path("root"), scene.path("elsewhere")).unwrap();
    scene.until("that is said", |scene| {
        scene.route("orders").is_some_and(|route| route.folder_fault.is_some())
    });
    let ended = scene.ask(&["list", "--state", "missing", "--json"]);
    assert!(!ended.out.contains("a.json"), "{ended:?}");
    assert!(!scene.path("root").exists(), "the service has made a root of its own");
    fs::rename(scene.path("elsewhere"), scene.path("root")).unwrap();
    scene.until("it is back", |scene| {
        scene.route("orders").is_some_and(|route| route.folder_fault.is_none())
    });
    assert_eq!(scene.ask(&["resume", "orders"]).code, Some(0));
    scene.drop_file("b.json", "{}");
    scene.until_in("sent", &["a.json", "b.json"]);
    assert_eq!(scene.posts(), 2);
    scene.verify();
    // The same at a start.
    assert_eq!(scene.stop(), Some(0));
    scene.drop_file("c.json", "{}");
    fs::rename(scene.path("root"), scene.path("elsewhere")).unwrap();
    scene.launch();
    let is_told = |scene: &Scene| {
        let alerts = scene.status().map(|status| status.alerts).unwrap_or_default();
        alerts.iter().any(|alert| alert.contains("could not be reached"))
    };
    scene.until("that is told", is_told);
    fs::rename(scene.path("elsewhere"), scene.path("root")).unwrap();
    scene.until_in("sent", &["a.json", "b.json", "c.json"]);
    scene.until("the alert goes with its reason", |scene| !is_told(scene));
    scene.verify();
}

#[test]
fn a_route_whose_folder_is_not_there_stops_alone_and_starts_when_it_comes() {
    let mut scene = Scene::of(Plan {
        top: "poll_every = '1s'",
        tables: "[route.later]\nfolder = '{dir}/share/later'\nvanity = 'later'",
        ..Plan::default()
    });
    scene.start();
    scene.drop_file("a.json", "{}");
    scene.until_in("sent", &["a.json"]);
    let later = scene.path("share/later");
    fs::create_dir_all(&later).unwrap();
    scene.drop_into(&later, "b.json", "{}");
    scene.until("the late route sends", |_| names(&later.join("sent")) == ["b.json"]);
    assert_eq!(arrived_at(&scene), pairs(&[("later", "b.json"), ("orders", "a.json")]));
    scene.verify();
}

#[test]
fn a_receipt_stands_beside_each_sent_file_and_is_never_sent() {
    let scene = Scene::running(Plan { defaults: "receipts = true", ..Plan::default() });
    scene.drop_file("a.json", "{}");
    scene.until_in("sent", &["a.json", "a.json.receipt.json"]);
    let text = fs::read(scene.inbox().join("sent/a.json.receipt.json")).unwrap();
    let receipt: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let digest = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
    assert!(receipt.to_string().contains(digest), "{receipt}");
    // Moved back with its file, it stays.
    scene.drop_file("a.json.receipt.json", "{}");
    scene.drop_file("b.json", "{}");
    scene.until("b is sent", |scene| scene.inbox().join("sent/b.json").exists());
    assert_eq!(scene.posts(), 2);
    assert_eq!(files(&scene.inbox()), ["a.json.receipt.json"]);
    scene.verify();
}

#[test]
fn an_http_route_with_a_folder_of_its_own_needs_no_root_and_says_name_id_and_digest() {
    let mut scene = Scene::of(Plan {
        top: "root = 'root'\nauto_routes = false",
        defaults: "headers = {}",
        tables: "[route.hook]\nfolder = '{dir}/drop'\ndeliver = 'http'\nurl = '{sim}/hook/erp'\n\
                 headers = { X-File-Name = '{name}|{id}|{sha256}' }",
        ..Plan::default()
    });
    fs::create_dir(scene.path("drop")).unwrap();
    let config = fs::read_to_string(scene.path("config.toml")).unwrap();
    let without_root = config.replace("root = 'root'\n", "").replace("auto_routes = false\n", "");
    fs::write(scene.path("config.toml"), without_root).unwrap();
    scene.launch();
    let drop = scene.path("drop");
    scene.drop_into(&drop, "ü a.json", "{}");
    scene.until("it is sent", |_| names(&drop.join("sent")) == ["ü a.json"]);
    let (door, header, body) = scene.arrived().pop().unwrap();
    let parts: Vec<&str> = header.split('|').collect();
    let digest = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
    assert_eq!((door.as_str(), parts[0], parts[2]), ("erp", "%C3%BC a.json", digest));
    assert_eq!((parts[1].len(), body), (10, b"{}".to_vec()));
    assert_eq!(scene.sim.counts().token_requests, 0, "an http route asks for no token");
    scene.verify();
}

#[test]
fn a_target_folder_that_somebody_removes_is_made_again() {
    let scene = Scene::running(Plan::default());
    scene.drop_file("a.json", "{}");
    scene.until_in("sent", &["a.json"]);
    for folder in ["sent", "failed", "sending"] {
        fs::remove_dir_all(scene.inbox().join(folder)).unwrap();
    }
    scene.drop_file("b.json", "{\"b\":1}");
    scene.drop_file("bad.json", "[1 2]");
    scene.until_in("sent", &["b.json"]);
    scene.until_in("failed", &["bad.json", "bad.json.why.txt"]);
    assert_eq!(scene.posts(), 2);
}

#[test]
fn a_root_that_was_made_anew_without_its_mark_stops_its_routes_until_it_is_back() {
    let scene =
        Scene::running(Plan { top: "poll_every = '1s'\nsweep_every = '1s'", ..Plan::default() });
    scene.drop_file("a.json", "{}");
    scene.until_in("sent", &["a.json"]);
    fs::rename(scene.path("root"), scene.path("elsewhere")).unwrap();
    fs::create_dir_all(scene.path("root/orders")).unwrap();
    scene.drop_file("b.json", "{}");
    scene.until("that is an alert", |scene| {
        let alerts = scene.status().map(|status| status.alerts).unwrap_or_default();
        alerts.iter().any(|alert| alert.contains("the mark of patchdrop"))
    });
    scene.until("its route is stopped", |scene| {
        let fault = scene.route("orders").and_then(|route| route.folder_fault);
        fault.is_some_and(|fault| fault.contains("patchdrop adopt"))
    });
    assert_eq!((files(&scene.inbox()), scene.posts()), (vec!["b.json".to_owned()], 1));
    fs::rename(scene.path("root"), scene.path("made-anew")).unwrap();
    fs::rename(scene.path("elsewhere"), scene.path("root")).unwrap();
    scene.drop_file("c.json", "{}");
    scene.until_in("sent", &["a.json", "c.json"]);
    scene.until("all is well", |scene| scene.status().is_some_and(|it| it.alerts.is_empty()));
    scene.verify();
}

#[test]
fn the_watch_goes_over_to_a_folder_that_has_come_in_place_of_another() {
    let scene = Scene::running(Plan::default());
    scene.drop_file("a.json", "{}");
    scene.until_in("sent", &["a.json"]);
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .args([scene.path("root"), scene.path("copy")])
        .status();
    assert!(copied.unwrap().success());
    fs::remove_dir(scene.path("copy/orders/sending")).unwrap();
    fs::rename(scene.path("root"), scene.path("elsewhere")).unwrap();
    fs::rename(scene.path("copy"), scene.path("root")).unwrap();
    // The old watch tells of the old folder, and so has the new one listed, once.
    scene.drop_into(&scene.path("elsewhere/orders"), "hint.json", "{}");
    for name in ["b.json", "c.json", "d.json"] {
        scene.drop_file(name, format!("{{\"name\": \"{name}\"}}"));
        scene.until("it is sent", |scene| scene.arrivals().contains_key(name));
    }
    scene.until_in("sent", &["a.json", "b.json", "c.json", "d.json"]);
}

#[test]
fn a_root_that_is_a_link_is_refused_with_one_sentence_everywhere() {
    let mut scene = Scene::of(Plan {
        top: "poll_every = '1s'",
        tables: "[route.linked]\nfolder = '{dir}/share'\nvanity = 'linked'",
        ..Plan::default()
    });
    fs::rename(scene.path("root"), scene.path("real")).unwrap();
    for (to, link) in [("real", "root"), ("outside", "share")] {
        std::os::unix::fs::symlink(scene.path(to), scene.path(link)).unwrap();
    }
    let sentences =
        ["root", "share"].map(|link| format!("{} is a link", scene.path(link).display()));
    let tells_both = |text: &str| sentences.iter().all(|sentence| text.contains(sentence));
    let checked = scene.ask(&["check"]);
    assert_eq!(checked.code, Some(3), "{checked:?}");
    assert!(tells_both(&checked.out), "{checked:?}");
    scene.launch();
    scene.drop_file("a.json", "{}");
    scene.until("status says so", |scene| {
        let alerts = scene.status().map(|status| status.alerts).unwrap_or_default();
        tells_both(&alerts.join("\n"))
    });
    assert_eq!((files(&scene.path("real/orders")), scene.posts()), (vec!["a.json".to_owned()], 0));
    assert!(!scene.log().contains("can be written by others"), "{}", scene.log());
    // Folders come in their places, and it goes on by itself.
    for link in ["root", "share"] {
        fs::remove_file(scene.path(link)).unwrap();
    }
    fs::create_dir(scene.path("share")).unwrap();
    fs::rename(scene.path("real"), scene.path("root")).unwrap();
    scene.until_in("sent", &["a.json"]);
    assert_eq!(scene.stop(), Some(0));
}
