//! Faults of a registry, in a tiny language of terms.
//!
//! A program is a list of terms, separated by `->`. Each request that a rule applies to takes the next
//! one: `2*status(503)->off` answers twice with 503 and is well from then on. A term without a count
//! stays for ever, so nothing can follow it.

use std::{str::FromStr, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};

/// What happens to one answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// `off`: nothing, the answer is right.
    Off,
    /// `status(N)`: this HTTP status with an empty body.
    Status(u16),
    /// `drop`: the connection closes before an answer.
    Drop,
    /// `truncate(N)`: right headers, N bytes of the body, then the connection closes.
    Truncate(u64),
    /// `stall(N)`: right headers, N bytes of the body, then silence.
    Stall(u64),
    /// `corrupt`: right length, but each byte is inverted, so that the digest is wrong.
    Corrupt,
    /// `endless`: the body, and then zeros for ever, without a declared length.
    Endless,
    /// `redirect(URL)`: 307 to there.
    Redirect(String),
    /// `slow(N)`: N bytes per second.
    Slow(u64),
    /// `delay(MS)`: the right answer, after so many milliseconds.
    Delay(Duration),
    /// `challenge`: 401 with a challenge, whatever the request carries.
    Challenge,
    /// `body(TEXT)`: status 200 with this body.
    Body(String),
}

/// How many requests a term serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Count {
    Left(u32),
    Endless,
}

/// A program and how far it has got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    terms: Vec<(Count, Action)>,
}

impl Program {
    /// The action for the next request. After the last term the program is off.
    pub fn take(&mut self) -> Action {
        while let Some((count, action)) = self.terms.first_mut() {
            match count {
                Count::Endless => return action.clone(),
                Count::Left(0) => {
                    self.terms.remove(0);
                }
                Count::Left(left) => {
                    *left -= 1;
                    return action.clone();
                }
            }
        }
        Action::Off
    }
}

impl FromStr for Program {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let terms = text.split("->").map(term).collect::<Result<Vec<_>>>()?;
        let before_last = &terms[..terms.len() - 1];
        ensure!(
            before_last
                .iter()
                .all(|(count, _)| *count != Count::Endless),
            "{text:?}: a term without a count never ends; only the last one may be such"
        );
        Ok(Self { terms })
    }
}

fn term(text: &str) -> Result<(Count, Action)> {
    let text = text.trim();
    let (count, action) = match text.split_once('*') {
        Some((count, action)) if count.bytes().all(|byte| byte.is_ascii_digit()) => (
            Count::Left(
                count
                    .parse()
                    .with_context(|| format!("the count of {text:?}"))?,
            ),
            action,
        ),
        _ => (Count::Endless, text),
    };
    let (name, argument) = match action.split_once('(') {
        Some((name, rest)) => {
            let argument = rest
                .strip_suffix(')')
                .with_context(|| format!("{text:?}: no `)`"))?;
            (name, argument)
        }
        None => (action, ""),
    };
    let number = || -> Result<u64> {
        argument
            .parse()
            .with_context(|| format!("{text:?}: {name} needs a number"))
    };
    let action = match name {
        "off" => Action::Off,
        "status" => Action::Status(u16::try_from(number()?)?),
        "drop" => Action::Drop,
        "truncate" => Action::Truncate(number()?),
        "stall" => Action::Stall(number()?),
        "corrupt" => Action::Corrupt,
        "endless" => Action::Endless,
        "redirect" => Action::Redirect(argument.to_owned()),
        "slow" => Action::Slow(number()?),
        "delay" => Action::Delay(Duration::from_millis(number()?)),
        "challenge" => Action::Challenge,
        "body" => Action::Body(argument.to_owned()),
        other => bail!("{text:?}: no fault is named {other:?}"),
    };
    Ok((count, action))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn terms_follow_each_other() {
        let mut program: Program = "1*truncate(1000)->2*status(503)->off".parse().unwrap();
        let taken: Vec<_> = (0..5).map(|_| program.take()).collect();
        assert_eq!(
            taken,
            [
                Action::Truncate(1000),
                Action::Status(503),
                Action::Status(503),
                Action::Off,
                Action::Off
            ]
        );
    }

    #[test]
    fn a_finished_program_is_off() {
        let mut program: Program = "1*drop".parse().unwrap();
        assert_eq!(
            (program.take(), program.take()),
            (Action::Drop, Action::Off)
        );
    }

    #[test]
    fn arguments_may_hold_anything() {
        let mut program: Program = "redirect(http://a/b?c=*d)".parse().unwrap();
        assert_eq!(program.take(), Action::Redirect("http://a/b?c=*d".into()));
    }

    #[test]
    fn mistakes_are_named() {
        for (text, part) in [
            ("truncate", "needs a number"),
            ("status(200", "no `)`"),
            ("explode", "no fault is named"),
            ("off->1*drop", "never ends"),
            ("99999999999*drop", "the count"),
        ] {
            let error = text.parse::<Program>().unwrap_err();
            assert!(format!("{error:#}").contains(part), "{text}: {error:#}");
        }
    }
}
