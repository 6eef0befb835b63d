//! `patchdrop token`: what is known about access tokens, never the tokens themselves.

use std::path::PathBuf;
use std::sync::Arc;

use super::Globals;
use super::exit_code::Exit;
use super::failure::Failure;
use super::load::Secrets;
use super::screen::{Align, Screen, Table};
use super::serve;
use crate::config::Config;
use crate::model::exchange::{CredentialName, TokenRefusal};
use crate::model::route::Credential;
use crate::model::time::Wall;
use crate::world::clock::SystemClock;
use crate::world::endpoint::HttpEndpoint;
use crate::world::token::{TokenDesk, Tokens};

/// Show each credential's token: from where, how old, until when. Never the token itself
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    patchdrop token\n  \
    patchdrop token inbound --refresh")]
pub(super) struct Arguments {
    /// The credential [default: all]
    credential: Option<String>,
    /// Ask for a new token now; it shows whether the credential works
    #[arg(long, conflicts_with = "forget")]
    refresh: bool,
    /// Remove the kept token; the next attempt asks for a new one
    #[arg(long)]
    forget: bool,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

impl Arguments {
    /// Whether it changes what is kept.
    #[cfg(unix)]
    pub(super) fn changes(&self) -> bool {
        self.refresh || self.forget
    }
}

pub(super) async fn run(
    globals: &Globals,
    arguments: &Arguments,
    screen: &mut Screen<'_>,
) -> Result<Exit, Failure> {
    // A token is kept for one secret; only with that can it be told from an older one's.
    let config = globals.load(Secrets::Needed)?;
    let names = chosen(&config, arguments.credential.as_deref())?;
    change(&config, &names, arguments, screen).await?;
    if arguments.forget {
        return Ok(Exit::Done);
    }
    let mut tokens = tokens(&config)?;
    tokens.retain(|token| names.contains(&token.credential));
    if arguments.json {
        screen.json(&as_json(&tokens))?;
    } else {
        render(&tokens, screen)?;
    }
    Ok(Exit::Done)
}

/// Fetches anew or forgets, as asked.
async fn change(
    config: &Config,
    names: &[String],
    arguments: &Arguments,
    screen: &mut Screen<'_>,
) -> Result<(), Failure> {
    for name in names {
        if arguments.refresh || arguments.forget {
            if let Some(text) = nothing_to_fetch(config, name) {
                if !arguments.json {
                    writeln!(screen.out, "{name}: {text}")?;
                }
            } else if arguments.refresh {
                refresh_token(config, name).await?;
            } else {
                let there_was = forget_token(config, name).await?;
                let text = if there_was { "its token is forgotten" } else { "no token was kept" };
                writeln!(screen.out, "{name}: {text}")?;
            }
        }
    }
    Ok(())
}

/// What is kept about a credential's token.
#[derive(Clone, Debug, PartialEq, Eq)]
struct KeptToken {
    /// The credential.
    credential: String,
    /// `oauth2`, `login`, `api_key`, `bearer` or `basic`.
    kind: &'static str,
    /// Where the token is asked for; `None`: nothing is asked for.
    token_url: Option<String>,
    /// The token itself is nowhere in here; `None`: none is kept.
    kept: Option<Kept>,
}

/// A token as it is kept in `state_dir`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Kept {
    /// The folder where it is kept.
    folder: PathBuf,
    /// How it was obtained, e.g. `GET, basic`.
    obtained_by: String,
    /// When.
    obtained_at: Wall,
    /// Its end.
    expires_at: Wall,
    /// The server named no end: it is reckoned with the config's `lifetime`.
    is_assumed: bool,
}

/// The tokens of every credential, as the service keeps them.
fn token_desk(config: &Config) -> Result<TokenDesk<SystemClock, HttpEndpoint>, Failure> {
    let endpoint = serve::endpoint(config)?;
    let clock = Arc::new(SystemClock::new());
    Ok(TokenDesk::new(config.credentials.clone(), &config.state_dir, clock, endpoint))
}

/// What is kept about every credential, or about one.
fn tokens(config: &Config) -> Result<Vec<KeptToken>, Failure> {
    let desk = token_desk(config)?;
    let token = |(name, credential): (&CredentialName, &Arc<Credential>)| KeptToken {
        credential: name.to_string(),
        kind: credential.kind.word(),
        token_url: credential.kind.asked_at().map(str::to_owned),
        kept: desk.peek(name).map(|glimpse| Kept {
            folder: config.state_dir.join("tokens"),
            obtained_by: glimpse.way.to_owned(),
            obtained_at: glimpse.fetched_at,
            expires_at: glimpse.expires_at,
            is_assumed: glimpse.is_assumed,
        }),
    };
    Ok(config.credentials.iter().map(token).collect())
}

/// Why there is nothing to ask for or to forget; `None` where a token is asked for.
fn nothing_to_fetch(config: &Config, credential: &str) -> Option<String> {
    let kind = &config.credentials.get(credential)?.kind;
    kind.asked_at().is_none().then(|| {
        format!("kind = \"{}\" goes out as the config has it; no token is fetched", kind.word())
    })
}

/// Asks for a new token now.
async fn refresh_token(config: &Config, credential: &str) -> Result<(), Failure> {
    let desk = token_desk(config)?;
    let name = CredentialName::from(credential);
    let asked = match desk.peek(&name) {
        Some(glimpse) => desk.refresh(&name, glimpse.generation).await,
        None => desk.current(&name).await,
    };
    match asked {
        Ok(_) => Ok(()),
        Err(TokenRefusal { cause, remedy, .. }) => {
            let text = format!("credential {credential}: {} ({})", cause.plain, cause.code);
            Err(Failure::machine(text).hint(remedy))
        }
    }
}

/// Removes the kept token of a credential; whether there was one.
async fn forget_token(config: &Config, credential: &str) -> Result<bool, Failure> {
    let desk = token_desk(config)?;
    let name = CredentialName::from(credential);
    let there_was = desk.peek(&name).is_some();
    desk.forget(&name).await.map_err(Failure::machine)?;
    Ok(there_was)
}

fn chosen(config: &Config, credential: Option<&str>) -> Result<Vec<String>, Failure> {
    let all: Vec<String> = config.credentials.keys().map(ToString::to_string).collect();
    match credential {
        None => Ok(all),
        Some(name) if all.iter().any(|known| known == name) => Ok(vec![name.to_owned()]),
        Some(name) => {
            let failure = Failure::usage(format!("there is no credential {name:?}"));
            Err(match all.as_slice() {
                [] => failure.hint("the config has no [credential.NAME] table"),
                all => failure.hint(format!("there are: {}", all.join(", "))),
            })
        }
    }
}

fn as_json(tokens: &[KeptToken]) -> serde_json::Value {
    let token = |token: &KeptToken| {
        let kept = token.kept.as_ref();
        serde_json::json!({
            "credential": token.credential,
            "kind": token.kind,
            "token_url": token.token_url,
            "folder": kept.map(|kept| kept.folder.display().to_string()),
            "obtained_by": kept.map(|kept| &kept.obtained_by),
            "obtained_at": kept.map(|kept| kept.obtained_at),
            "expires_at": kept.map(|kept| kept.expires_at),
            "lifetime_is_assumed": kept.map(|kept| kept.is_assumed),
        })
    };
    tokens.iter().map(token).collect()
}

fn render(tokens: &[KeptToken], screen: &mut Screen<'_>) -> Result<(), Failure> {
    if tokens.is_empty() {
        writeln!(screen.out, "the config has no credential")?;
        return Ok(());
    }
    let style = screen.style.clone();
    let mut table = Table::new(&[
        ("credential", Align::Left),
        ("kind", Align::Left),
        ("token", Align::Left),
        ("expires", Align::Left),
        ("obtained by", Align::Left),
        ("from", Align::Left),
    ]);
    for KeptToken { credential, kind, token_url, kept } in tokens {
        let (age, expires, obtained_by) = match kept {
            None if token_url.is_none() => ("none needed".to_owned(), String::new(), String::new()),
            None => ("none kept".to_owned(), String::new(), String::new()),
            Some(kept) => {
                let mut expires = if kept.expires_at > style.now {
                    style.until(kept.expires_at)
                } else {
                    "expired".to_owned()
                };
                if kept.is_assumed {
                    expires += " (by lifetime)";
                }
                (style.ago(kept.obtained_at), expires, kept.obtained_by.clone())
            }
        };
        let from = token_url.clone().unwrap_or_else(|| "the config".to_owned());
        let kind = (*kind).to_owned();
        table.row(vec![credential.clone(), kind, age, expires, obtained_by, from]);
    }
    if tokens.iter().filter_map(|token| token.kept.as_ref()).any(|kept| kept.is_assumed) {
        table.write(screen, "")?;
        writeln!(screen.out)?;
        let text = "by lifetime: the server named no end; the config's lifetime is taken";
        writeln!(screen.out, "{text}")?;
        return Ok(());
    }
    Ok(table.write(screen, "")?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use super::*;
    use crate::cli::fixture::{self, START};
    use crate::model::route::CredentialKind;
    use crate::model::secret::Secret;

    fn tokens() -> Vec<KeptToken> {
        let kept = |seconds, is_assumed| Kept {
            folder: "/var/lib/patchdrop/tokens".into(),
            obtained_by: "GET, basic".to_owned(),
            obtained_at: START,
            expires_at: START.plus(Duration::from_secs(seconds)),
            is_assumed,
        };
        let token = |name: &str, kept| KeptToken {
            credential: name.to_owned(),
            kind: "oauth2",
            token_url: Some("https://auth.example/oauth/token".to_owned()),
            kept,
        };
        vec![
            token("inbound", Some(kept(86_400, true))),
            token("old", Some(kept(3_600, false))),
            token("unused", None),
            KeptToken { kind: "api_key", token_url: None, ..token("core", None) },
        ]
    }

    #[test]
    fn age_and_end_are_shown() {
        let (text, shown) = fixture::shown(|screen| render(&tokens(), screen));
        shown.unwrap();
        insta::assert_snapshot!(text, @r"
        credential  kind     token        expires               obtained by  from
        inbound     oauth2   1h ago       in 23h (by lifetime)  GET, basic   https://auth.example/oauth/token
        old         oauth2   1h ago       expired               GET, basic   https://auth.example/oauth/token
        unused      oauth2   none kept                                       https://auth.example/oauth/token
        core        api_key  none needed                                     the config

        by lifetime: the server named no end; the config's lifetime is taken
        ");
        let json = as_json(&tokens());
        assert_eq!(json[0]["expires_at"], "2026-11-22T08:00:00.000Z");
        assert_eq!(json[0]["lifetime_is_assumed"], true);
        assert_eq!(json[2]["expires_at"], serde_json::Value::Null);
        assert_eq!((&json[3]["kind"], &json[3]["token_url"]), (&"api_key".into(), &().into()));
    }

    #[tokio::test]
    async fn where_no_token_is_fetched_refresh_and_forget_say_so() {
        let root = tempfile::tempdir().unwrap();
        let mut config = fixture::config(root.path(), &["orders"]);
        let credential = Credential {
            name: "core".into(),
            kind: CredentialKind::ApiKey(Secret::new("0123456789")),
            refresh_before: Duration::from_mins(10),
            lifetime: Duration::from_hours(24),
            keep_token: true,
            hosts: BTreeSet::new(),
        };
        config.credentials.insert("core".into(), Arc::new(credential));
        let check = async |refresh: bool, json: bool, said: &str| {
            let arguments = Arguments { credential: None, refresh, forget: !refresh, json };
            let mut out = Vec::new();
            let names = ["core".to_owned()];
            change(&config, &names, &arguments, &mut fixture::screen(&mut out)).await.unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), said);
        };
        let said = "core: kind = \"api_key\" goes out as the config has it; no token is fetched\n";
        check(true, false, said).await;
        check(false, false, said).await;
        check(true, true, "").await;
        let tokens = super::tokens(&config).unwrap();
        assert_eq!((tokens[0].kind, &tokens[0].token_url), ("api_key", &None));
        assert_eq!(tokens[0].kept, None);
    }

    #[test]
    fn an_unknown_credential_is_a_usage_error() {
        let root = tempfile::tempdir().unwrap();
        let config = fixture::config(root.path(), &["orders"]);
        let failure = chosen(&config, Some("outbound")).unwrap_err();
        assert_eq!(failure.kind, super::super::Kind::Usage);
        assert_eq!(chosen(&config, None).unwrap(), Vec::<String>::new());
    }
}
