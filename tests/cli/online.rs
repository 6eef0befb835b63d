//! `check --online` and `doctor` beside real servers: what they find, and what they leave alone.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;

use patchdrop::model::secret::Secret;
use patchdrop::simulator::SimulatorOptions;
use serde_json::Value;

use crate::live::Site;

/// Puts keys at the top of the config, and tables at its end.
fn extend(site: &Site, top: &str, tables: &str) {
    let path = site.path("config.toml");
    let config = std::fs::read_to_string(&path).unwrap();
    std::fs::write(path, format!("{top}\n{config}\n{tables}\n")).unwrap();
}

/// A port that nobody listens on.
fn closed() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A server that gives one answer to everything.
fn serve(head: &'static str, body: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for socket in listener.incoming().map_while(Result::ok) {
            let lines = BufReader::new(&socket).lines().map_while(Result::ok);
            let request: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
            let is_head = request.first().is_some_and(|line| line.starts_with("HEAD / "));
            let body = if is_head { "" } else { body };
            let answer = format!("HTTP/1.1 {head}\r\nConnection: close\r\n\r\n{body}");
            (&socket).write_all(answer.as_bytes()).unwrap();
        }
    });
    port
}

/// A route whose runs are asked for at the simulator.
fn with_runs(site: &Site, keys: &str) -> String {
    format!(
        "[route.stock]\nfolder = 'stock'\ndeliver = 'flow'\nflow_id = '77'\nconfirm = 'run'\n\
         start_url = '{}'\ncore_url = '{}'\n{keys}\n",
        site.simulator.start_url(),
        site.simulator.core_url()
    )
}

/// Every finding of a section: level, subject, text, remedy.
fn findings(sections: &Value, title: &str) -> Vec<[String; 4]> {
    let sections = sections.as_array().unwrap();
    let section = sections.iter().find(|section| section["title"] == title).unwrap();
    let field = |finding: &Value, name: &str| finding[name].as_str().unwrap_or("").to_owned();
    let all = section["findings"].as_array().unwrap().iter();
    all.map(|one| ["level", "subject", "text", "remedy"].map(|name| field(one, name))).collect()
}

/// The only finding that is not as it should be.
fn fault(sections: &Value, title: &str) -> [String; 4] {
    let all = findings(sections, title);
    let faults: Vec<_> = all.iter().filter(|finding| finding[0] != "ok").collect();
    assert_eq!(faults.len(), 1, "{all:?}");
    faults[0].clone()
}

#[test]
fn what_is_well_is_said_and_nothing_is_sent_or_kept() {
    let bearer = Some(Secret::new("t0ken-4711"));
    let site = Site::with(SimulatorOptions { bearer, ..SimulatorOptions::default() });
    let token = r#"{"access_token": "t0ken-4711", "expires_in": 3600}"#;
    let port = serve("200 OK\r\nContent-Type: application/json", token);
    let credential = format!(
        "[credential.flows]\nkind = 'oauth2'\ntoken_url = 'http://127.0.0.1:{port}/token'\n\
         client_id = 'me'\nclient_secret = {{ env = 'LIVE_SECRET' }}\n\
         [credential.fixed]\nkind = 'bearer'\ntoken = {{ env = 'LIVE_SECRET' }}\n"
    );
    let tables = with_runs(&site, "credential = 'flows'") + &credential;
    extend(&site, "auto_routes = false", &(tables + "[route.orders]\ncredential = 'inbound'"));
    let text = site.ends(0, &["check", "--online"]);
    for part in [
        "a token was given by GET",
        "kind = \"bearer\" goes out as the config has it; nothing to fetch",
        "it is not kept",
        "reached directly in ",
        "for credential flows",
        "for credential inbound, route orders, route stock, the runs of route stock",
        "flow 77",
        "as flows; for route stock",
        "Everything is as it should be.",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    assert!(!text.contains(&site.secret) && !text.contains("t0ken"), "{text}");
    let all = site.json(0, &["check", "--online"]);
    assert_eq!(findings(&all["online"], "Servers").len(), 2, "each host once");
    assert_eq!(all["routes"][0]["route"], "orders");
    let seen = site.simulator.seen();
    assert_eq!((seen.payloads.len(), seen.accepted), (0, 0));
    assert_eq!(site.simulator.runs().len(), 0);
    assert!(!site.path("state").exists(), "neither lock nor token is left behind");
}

#[test]
fn beside_a_service_its_token_is_read_and_never_replaced() {
    let site = Site::new();
    let service = site.start();
    site.drop_until("a.json", "{}", "sent");
    let cache = || {
        let folder = std::fs::read_dir(site.path("state/tokens")).unwrap();
        folder.map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect::<Vec<_>>()
    };
    let (before, issued) = (cache(), site.simulator.seen().tokens_issued);
    for arguments in [&["check", "--online"][..], &["doctor"]] {
        let text = site.ends(0, arguments);
        assert!(text.contains("the kept token is good until "), "{text}");
    }
    assert_eq!((cache(), site.simulator.seen().tokens_issued), (before, issued));
    assert_eq!(site.simulator.seen().accepted, 1);
    site.stop(service);
}

#[test]
fn a_wrong_secret_ends_with_78_and_is_shown_nowhere() {
    let mut site = Site::new();
    site.secret = "wr0ng-Secret-4711".to_owned();
    for arguments in [&["check", "--online"][..], &["doctor"]] {
        let ended = site.run(arguments);
        assert_eq!(ended.code, 78, "{}\n{}", ended.out, ended.err);
        assert!(ended.out.contains("fault    inbound"), "{}", ended.out);
        assert!(ended.out.contains("hint: "), "{}", ended.out);
        assert!(!format!("{}{}", ended.out, ended.err).contains(&site.secret));
    }
}

#[test]
fn a_server_that_is_not_there_ends_with_69_and_names_its_routes() {
    let site = Site::new();
    let port = closed();
    let route = |name: &str, path: &str| {
        format!(
            "[route.{name}]\nfolder = '{name}'\ndeliver = 'http'\n\
             url = 'http://127.0.0.1:{port}/{path}?sig=s3cret'\n"
        )
    };
    extend(&site, "", &(route("one", "hush-1") + &route("two", "hush-2")));
    let all = site.json(69, &["check", "--online"]);
    let [_, subject, text, remedy] = fault(&all["online"], "Servers");
    assert_eq!(subject, format!("127.0.0.1:{port}"));
    assert!(text.starts_with("connection refused by 127.0.0.1:"), "{text}");
    assert!(text.ends_with("for route one, route two"), "{text}");
    assert!(remedy.contains("the firewall"), "{remedy}");
    assert!(!all.to_string().contains("s3cret") && !all.to_string().contains("hush"), "{all}");
    assert_eq!(findings(&all["online"], "Credentials")[0][0], "ok");
}

#[test]
fn runs_that_cannot_be_read_end_with_78() {
    let check = |keys: &dyn Fn(&Site) -> String, said: &str, mends: &str| {
        let site = Site::new();
        let core = site.simulator.core_url();
        let tables = with_runs(&site, "credential = 'inbound'").replace(&core, &keys(&site));
        extend(&site, "", &tables);
        let all = site.json(78, &["check", "--online"]);
        let [_, subject, text, remedy] = fault(&all["online"], "Runs of flows");
        assert_eq!(subject, "flow 77");
        assert!(text.contains(said) && text.ends_with("for route stock"), "{text}");
        assert!(remedy.contains(mends), "{remedy}");
    };
    let url = |site: &Site| site.simulator.url();
    check(&|site| url(site) + "/nowhere", "answers 404", "core_url and flow_id of route stock");
    // A token of the inbound API opens no other.
    check(&|site| site.simulator.core_url(), "answers 403", "[credential.inbound] the right");
}

#[test]
fn a_proxy_that_is_down_is_named_without_its_password() {
    let site = Site::new();
    let port = closed();
    extend(
        &site,
        &format!("proxy = 'http://me:w0rd-4711@127.0.0.1:{port}'"),
        "[route.shop]\nfolder = 'shop'\ndeliver = 'http'\nurl = 'https://shop.example/in'",
    );
    let all = site.json(69, &["doctor"]);
    let [_, subject, text, remedy] = fault(&all["sections"], "Servers");
    assert_eq!(subject, "shop.example");
    let said = format!("connection refused by the proxy http://127.0.0.1:{port} for shop.example");
    assert!(text.starts_with(&said), "{text}");
    assert!(remedy.contains("no_proxy"), "{remedy}");
    let network = findings(&all["sections"], "Network");
    let way = format!("proxy is set: http://127.0.0.1:{port}; directly: 127.0.0.1:");
    assert!(network[0][2].starts_with(&way), "{network:?}");
    let text = site.ends(69, &["check", "--online"]);
    assert!(text.contains("the proxy's password stands in the config"), "{text}");
    assert!(!text.contains("w0rd-4711") && !all.to_string().contains("w0rd-4711"), "{text}");
}

#[test]
fn the_environments_proxy_is_taken_and_its_password_hidden() {
    let site = Site::new();
    let port = closed();
    let route = "[route.shop]\nfolder = 'shop'\ndeliver = 'http'\nurl = 'https://shop.example/in'";
    extend(&site, "", route);
    let mut command = site.command(&["doctor"]);
    for name in ["ALL_PROXY", "all_proxy", "https_proxy", "NO_PROXY", "no_proxy"] {
        command.env_remove(name);
    }
    command.env("HTTPS_PROXY", format!("http://me:w0rd-4711@127.0.0.1:{port}"));
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(69), "{text}");
    assert!(text.contains(&format!("proxy = \"system\": http://127.0.0.1:{port}; ")), "{text}");
    assert!(text.contains("connection refused by the proxy http://127.0.0.1:"), "{text}");
    assert!(!text.contains("w0rd-4711"), "{text}");
}

#[test]
fn a_route_that_sends_to_the_front_page_is_not_asked() {
    let site = Site::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let route = "[route.front]\nfolder = 'front'\ndeliver = 'http'\n";
    extend(&site, "", &format!("{route}url = 'http://127.0.0.1:{port}/?sig=s3cret'"));
    let all = site.json(0, &["check", "--online"]);
    let servers = findings(&all["online"], "Servers");
    assert!(servers.iter().any(|it| it[2].starts_with("not asked: route front sends to its")));
    let kind = listener.accept().unwrap_err().kind();
    assert_eq!(kind, std::io::ErrorKind::WouldBlock, "somebody came");
}

#[test]
fn doctor_compares_clocks_and_shows_the_network() {
    let site = Site::new();
    let text = site.ends(0, &["doctor"]);
    for part in [
        "Config\n",
        "every server is reached directly",
        "certificate store",
        "agrees within a minute",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    let port = serve("503 No\r\nDate: Tue, 15 Nov 1994 08:12:31 GMT", "");
    let route = "[route.late]\nfolder = 'late'\ndeliver = 'http'\n";
    extend(&site, "", &format!("{route}url = 'http://127.0.0.1:{port}/in'"));
    std::fs::create_dir(site.path("drop/late")).unwrap();
    let all = site.json(0, &["doctor"]);
    let [level, _, text, remedy] = fault(&all["sections"], "Clock");
    assert_eq!(level, "warning");
    assert!(text.contains(&format!("ahead of that of 127.0.0.1:{port}")), "{text}");
    assert_eq!(remedy, "have it set: timedatectl set-ntp true");
}
