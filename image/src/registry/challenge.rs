//! `WWW-Authenticate` headers (RFC 9110 section 11.6.1).

/// What a server asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    /// A token from another server (distribution's token authentication).
    Bearer {
        realm: String,
        service: Option<String>,
        scope: Option<String>,
    },
}

/// All challenges of one header that we can meet; what is malformed or unknown is passed over.
pub(super) fn parse(header: &str) -> Vec<Challenge> {
    let mut challenges: Vec<(String, Vec<(String, String)>)> = Vec::new();
    let mut rest = header.trim_start();
    while !rest.is_empty() {
        let (word, after) = token(rest);
        if word.is_empty() {
            // Not a token: skip to the next comma, or end.
            rest = rest
                .split_once(',')
                .map_or("", |(_, rest)| rest.trim_start());
            continue;
        }
        match after.trim_start().strip_prefix('=') {
            // A parameter of the challenge before.
            Some(value) => {
                let (value, after) = parameter_value(value.trim_start());
                if let Some((_, parameters)) = challenges.last_mut() {
                    parameters.push((word.to_ascii_lowercase(), value));
                }
                rest = after.trim_start().trim_start_matches([',', ' ', '\t']);
            }
            None => {
                challenges.push((word.to_ascii_lowercase(), Vec::new()));
                rest = after.trim_start_matches([',', ' ', '\t']);
            }
        }
    }
    challenges
        .into_iter()
        .filter_map(|(scheme, parameters)| known(&scheme, &parameters))
        .collect()
}

fn known(scheme: &str, parameters: &[(String, String)]) -> Option<Challenge> {
    let parameter = |name: &str| {
        parameters
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.clone())
    };
    match scheme {
        "basic" => Some(Challenge::Basic),
        "bearer" => Some(Challenge::Bearer {
            realm: parameter("realm")?,
            service: parameter("service"),
            scope: parameter("scope"),
        }),
        _ => None,
    }
}

fn token(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !(c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~/:".contains(c)))
        .unwrap_or(text.len());
    text.split_at(end)
}

/// A token or a quoted string, and what follows it.
fn parameter_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let (value, rest) = token(text);
        return (value.to_owned(), rest);
    };
    let mut value = String::new();
    let mut escaped = false;
    for (at, c) in quoted.char_indices() {
        match c {
            _ if escaped => {
                value.push(c);
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => return (value, &quoted[at + 1..]),
            _ => value.push(c),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        Challenge::Bearer {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
            scope: scope.map(str::to_owned),
        }
    }

    #[test]
    fn headers_of_the_field() {
        for (header, expected) in [
            ("Basic realm=\"x\"", vec![Challenge::Basic]),
            ("basic", vec![Challenge::Basic]),
            (
                "Bearer realm=\"https://auth.docker.io/token\",service=\"registry.docker.io\",scope=\"repository:library/a:pull,push\"",
                vec![bearer(
                    "https://auth.docker.io/token",
                    Some("registry.docker.io"),
                    Some("repository:library/a:pull,push"),
                )],
            ),
            (
                "bearer realm=https://a.io/t , error=\"x\\\"y\"",
                vec![bearer("https://a.io/t", None, None)],
            ),
            (
                "Negotiate, Basic realm=\"a\", Bearer realm=\"r\"",
                vec![Challenge::Basic, bearer("r", None, None)],
            ),
            ("Bearer service=\"no realm\"", vec![]),
            ("", vec![]),
            ("=,=\"", vec![]),
            (
                "Bearer realm=\"unclosed",
                vec![bearer("unclosed", None, None)],
            ),
        ] {
            assert_eq!(parse(header), expected, "{header}");
        }
    }

    proptest! {
        #[test]
        fn never_panics_and_ends(header in "\\PC{0,100}") {
            parse(&header);
        }

        #[test]
        fn pieces_in_any_order(header in "((Bearer|Basic|realm|scope|=|,|\"| |\\\\|x){0,30})") {
            parse(&header);
        }
    }
}
