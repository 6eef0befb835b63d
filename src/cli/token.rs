//! `patchdrop token`: what is known about access tokens, never the tokens themselves.

use super::Globals;
use super::exit_code::Exit;
use super::failure::Failure;
use super::screen::{Align, Screen, Table};
use super::seam::{self, KeptToken, Secrets};
use crate::config::Config;

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

pub(super) async fn run(
    globals: &Globals,
    arguments: &Arguments,
    screen: &mut Screen<'_>,
) -> Result<Exit, Failure> {
    // A token is kept for one secret; only with that can it be told from an older one's.
    let config = globals.load(Secrets::Needed)?;
    let names = chosen(&config, arguments.credential.as_deref())?;
    for name in &names {
        if arguments.refresh {
            seam::refresh_token(&config, name).await?;
        } else if arguments.forget {
            let there_was = seam::forget_token(&config, name).await?;
            let text = if there_was { "its token is forgotten" } else { "no token was kept" };
            writeln!(screen.out, "{name}: {text}")?;
        }
    }
    if arguments.forget {
        return Ok(Exit::Done);
    }
    let mut tokens = seam::tokens(&config)?;
    tokens.retain(|token| names.contains(&token.credential));
    if arguments.json {
        screen.json(&as_json(&tokens))?;
    } else {
        render(&tokens, screen)?;
    }
    Ok(Exit::Done)
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
            "token_url": token.token_url,
            "folder": kept.map(|kept| kept.folder.display().to_string()),
            "obtained_by": kept.map(|kept| &kept.obtained_by),
            "obtained_at": kept.map(|kept| kept.obtained_at),
            "expires_at": kept.map(|kept| kept.expires_at),
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
        ("token", Align::Left),
        ("expires", Align::Left),
        ("obtained by", Align::Left),
        ("from", Align::Left),
    ]);
    for KeptToken { credential, token_url, kept } in tokens {
        let (age, expires, obtained_by) = match kept {
            None => ("none kept".to_owned(), String::new(), String::new()),
            Some(kept) => {
                let expires = if kept.expires_at > style.now {
                    style.until(kept.expires_at)
                } else {
                    "expired".to_owned()
                };
                (style.ago(kept.obtained_at), expires, kept.obtained_by.clone())
            }
        };
        table.row(vec![credential.clone(), age, expires, obtained_by, token_url.clone()]);
    }
    Ok(table.write(screen, "")?)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cli::fixture::{self, START};
    use crate::cli::seam::Kept;

    fn tokens() -> Vec<KeptToken> {
        let kept = |seconds| Kept {
            folder: "/var/lib/patchdrop/tokens".into(),
            obtained_by: "GET, basic".to_owned(),
            obtained_at: START,
            expires_at: START.plus(Duration::from_secs(seconds)),
        };
        let token = |name: &str, kept| KeptToken {
            credential: name.to_owned(),
            token_url: "https://auth.example/oauth/token".to_owned(),
            kept,
        };
        vec![
            token("inbound", Some(kept(86_400))),
            token("old", Some(kept(3_600))),
            token("unused", None),
        ]
    }

    #[test]
    fn age_and_end_are_shown() {
        let (text, shown) = fixture::shown(|screen| render(&tokens(), screen));
        shown.unwrap();
        insta::assert_snapshot!(text, @r"
        credential  token      expires  obtained by  from
        inbound     1h ago     in 23h   GET, basic   https://auth.example/oauth/token
        old         1h ago     expired  GET, basic   https://auth.example/oauth/token
        unused      none kept                        https://auth.example/oauth/token
        ");
        let json = as_json(&tokens());
        assert_eq!(json[0]["expires_at"], "2026-11-22T08:00:00.000Z");
        assert_eq!(json[2]["expires_at"], serde_json::Value::Null);
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
