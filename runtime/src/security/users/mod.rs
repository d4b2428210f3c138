//! Who a container runs as: CRI's user fields and the image's user, looked up in the image's passwd(5) and group(5).
//!
//! Ids are `u32` from the first digit on; what does not fit is an error, never a wrap (CVE-2024-40635).

mod cache;
mod database;
mod error;

pub(crate) use cache::{KeptDatabase, UserDatabases};
pub use error::UserError;

use database::{PasswdEntry, entries, group_entries};

/// Read at most so many bytes of `/etc/passwd` or `/etc/group`; a larger file is refused.
pub const MAX_DATABASE: usize = 4 << 20;

/// The kernel's NGROUPS_MAX.
const MAX_GROUPS: usize = 65_536;
/// (uid_t)-1 means "leave as is" to setresuid(2) and is never an id.
const NO_ID: u32 = u32::MAX;

/// The contents of the image's files; absent when the image has none.
#[derive(Clone, Copy, Debug, Default)]
pub struct UserDatabase<'a> {
    /// `/etc/passwd`.
    pub passwd: Option<&'a [u8]>,
    /// `/etc/group`.
    pub group: Option<&'a [u8]>,
}

/// CRI's `SupplementalGroupsPolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GroupsPolicy {
    /// The request's groups and those the image's group file gives the user.
    #[default]
    Merge,
    /// The request's groups alone.
    Strict,
}

/// What CRI and the image say.
#[derive(Clone, Copy, Debug, Default)]
pub struct UserRequest<'a> {
    /// The image configuration's `User`; counts when CRI names no user.
    pub image_user: &'a str,
    /// `run_as_user`.
    pub run_as_user: Option<i64>,
    /// `run_as_group`; needs a user beside it.
    pub run_as_group: Option<i64>,
    /// `run_as_username`; empty when not set. Counts before `run_as_user`.
    pub run_as_username: &'a str,
    /// `supplemental_groups`.
    pub supplemental_groups: &'a [i64],
    /// `supplemental_groups_policy`.
    pub policy: GroupsPolicy,
}

/// Who the process is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolvedUser {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary groups, the primary one first, each once (CVE-2022-36109).
    pub groups: Vec<u32>,
    /// The name in the image's passwd, if it has the user.
    pub name: Option<String>,
    /// The home directory there, when it is an absolute path without control characters (CVE-2022-4318).
    pub home: Option<String>,
}

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";

/// Resolves the request. The user is `run_as_username`, else `run_as_user`, else the image's, else root; the group is
/// `run_as_group`, else the image user's `:group` when its user counts, else the user's group in passwd, else 0.
///
/// # Errors
/// [`UserError`] names the user or group and the file.
pub fn resolve(
    request: &UserRequest<'_>,
    database: &UserDatabase<'_>,
) -> Result<ResolvedUser, UserError> {
    bounded(PASSWD, database.passwd)?;
    bounded(GROUP, database.group)?;
    let chosen = choose(request)?;
    let (uid, entry) = match chosen.user {
        Named::Id(uid) => (uid, entries(database.passwd).find(|entry| entry.uid == uid)),
        Named::Name(name) => {
            let entry = find_user(database.passwd, name)?;
            (entry.uid, Some(entry))
        }
    };
    let gid = match chosen.group {
        Some(Named::Id(gid)) => gid,
        Some(Named::Name(name)) => find_group(database.group, name)?,
        None => entry.as_ref().map_or(0, |entry| entry.gid),
    };
    let mut groups = vec![gid];
    let member = entry
        .as_ref()
        .map(|entry| entry.name)
        .filter(|_| request.policy == GroupsPolicy::Merge);
    if let Some(name) = member {
        groups.extend(
            group_entries(database.group)
                .filter(|group| group.has_member(name))
                .map(|group| group.gid),
        );
    }
    for requested in request.supplemental_groups {
        groups.push(id("supplemental_groups", *requested)?);
    }
    let mut seen = std::collections::HashSet::new();
    groups.retain(|group| seen.insert(*group));
    if groups.len() > MAX_GROUPS {
        return Err(UserError::TooManyGroups {
            count: groups.len(),
        });
    }
    let name = entry
        .as_ref()
        .and_then(|entry| std::str::from_utf8(entry.name).ok())
        .map(str::to_owned);
    let home = entry.and_then(|entry| entry.home());
    Ok(ResolvedUser {
        uid,
        gid,
        groups,
        name,
        home,
    })
}

/// A user or group as written: digits are an id, all else a name.
#[derive(Clone, Copy)]
enum Named<'a> {
    Id(u32),
    Name(&'a str),
}

struct Chosen<'a> {
    user: Named<'a>,
    group: Option<Named<'a>>,
}

fn choose<'a>(request: &UserRequest<'a>) -> Result<Chosen<'a>, UserError> {
    let group = match request.run_as_group {
        Some(gid) => Some(Named::Id(id("run_as_group", gid)?)),
        None => None,
    };
    // Checked even where the name counts: a request with an impossible id is wrong.
    let uid = match request.run_as_user {
        Some(uid) => Some(Named::Id(id("run_as_user", uid)?)),
        None => None,
    };
    if !request.run_as_username.is_empty() {
        return Ok(Chosen {
            user: named("run_as_username", request.run_as_username)?,
            group,
        });
    }
    if let Some(user) = uid {
        return Ok(Chosen { user, group });
    }
    if let Some(gid) = request.run_as_group {
        return Err(UserError::GroupWithoutUser { gid });
    }
    let form = || UserError::Form {
        user: shown(request.image_user),
    };
    let (user, group) = match request.image_user.split_once(':') {
        None => (request.image_user, None),
        Some((_, group)) if group.contains(':') => return Err(form()),
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
    };
    let user = match user {
        "" if group.is_some() => return Err(form()),
        "" => Named::Id(0),
        user => named("image user", user)?,
    };
    let group = group.map(|group| named("image group", group)).transpose()?;
    Ok(Chosen { user, group })
}

fn named<'a>(field: &'static str, text: &'a str) -> Result<Named<'a>, UserError> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(Named::Name(text));
    }
    let range = || UserError::Range {
        field,
        value: shown(text),
    };
    if digits.len() != text.len() {
        return Err(range());
    }
    match text.parse() {
        Ok(NO_ID) | Err(_) => Err(range()),
        Ok(number) => Ok(Named::Id(number)),
    }
}

fn id(field: &'static str, value: i64) -> Result<u32, UserError> {
    match u32::try_from(value) {
        Ok(NO_ID) | Err(_) => Err(UserError::Range {
            field,
            value: value.to_string(),
        }),
        Ok(number) => Ok(number),
    }
}

fn shown(text: &str) -> String {
    text.chars().take(64).collect()
}

fn bounded(file: &'static str, contents: Option<&[u8]>) -> Result<(), UserError> {
    match contents {
        Some(contents) if contents.len() > MAX_DATABASE => Err(UserError::TooLarge {
            file,
            size: contents.len(),
        }),
        _ => Ok(()),
    }
}

fn find_user<'a>(passwd: Option<&'a [u8]>, name: &str) -> Result<PasswdEntry<'a>, UserError> {
    let (kind, file) = ("user", PASSWD);
    if passwd.is_none() {
        return Err(UserError::NoFile {
            kind,
            name: shown(name),
            file,
        });
    }
    let found = entries(passwd).find(|entry| entry.name == name.as_bytes());
    found.ok_or_else(|| UserError::Unknown {
        kind,
        name: shown(name),
        file,
    })
}

fn find_group(group: Option<&[u8]>, name: &str) -> Result<u32, UserError> {
    let (kind, file) = ("group", GROUP);
    if group.is_none() {
        return Err(UserError::NoFile {
            kind,
            name: shown(name),
            file,
        });
    }
    let found = group_entries(group).find(|entry| entry.name == name.as_bytes());
    found
        .map(|entry| entry.gid)
        .ok_or_else(|| UserError::Unknown {
            kind,
            name: shown(name),
            file,
        })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PASSWD_TEXT: &[u8] = b"root:x:0:0:root:/root:/bin/sh\n# comment\nbroken\nbad:x:4294967296:1::/bad:\nwww-data:x:33:33::/var/www:/bin/false\ndefault-user:x:1000:1000::/home/u\x1b:\nshort:x:7:8\n";
    const GROUP_TEXT: &[u8] = b"root:x:0:\nusers:x:100:www-data , other\nextra:x:50000:default-user,www-data\nwww-data:x:33:www-data\nbroken:x:-1:www-data\n";
    const IMAGE: UserDatabase<'_> = UserDatabase {
        passwd: Some(PASSWD_TEXT),
        group: Some(GROUP_TEXT),
    };

    fn image(user: &str) -> Result<ResolvedUser, UserError> {
        resolve(
            &UserRequest {
                image_user: user,
                ..Default::default()
            },
            &IMAGE,
        )
    }

    #[test]
    fn resolves_the_images_forms() {
        for (form, uid, gid, groups) in [
            ("", 0, 0, &[0][..]),
            ("root", 0, 0, &[0]),
            ("33", 33, 33, &[33, 100, 50000]),
            ("www-data", 33, 33, &[33, 100, 50000]),
            ("www-data:100", 33, 100, &[100, 50000, 33]),
            ("1003:users", 1003, 100, &[100]),
            ("1003", 1003, 0, &[0]),
            ("1003:1004", 1003, 1004, &[1004]),
            ("1000", 1000, 1000, &[1000, 50000]),
            ("short", 7, 8, &[8]),
            ("root:", 0, 0, &[0]),
            (
                "4294967294:4294967294",
                4_294_967_294,
                4_294_967_294,
                &[4_294_967_294],
            ),
        ] {
            let user = image(form).unwrap();
            assert_eq!(
                (user.uid, user.gid, user.groups.as_slice()),
                (uid, gid, groups),
                "{form:?}"
            );
        }
    }

    #[test]
    fn finds_name_and_home() {
        let user = image("33").unwrap();
        assert_eq!(
            (user.name.as_deref(), user.home.as_deref()),
            (Some("www-data"), Some("/var/www"))
        );
        assert_eq!(image("1000").unwrap().home, None, "a control character");
        assert_eq!(image("short").unwrap().home, None);
        assert_eq!(image("12345").unwrap().name, None);
    }

    #[test]
    fn refuses_bad_forms() {
        for bad in [
            "4294967296",
            "4294967296:0",
            "0:4294967296",
            "4294967295",
            "-1",
            "+1",
            "1:-1",
            "99999999999999999999999",
        ] {
            assert!(matches!(image(bad), Err(UserError::Range { .. })), "{bad}");
        }
        for bad in [":0", "a:b:c", "1:2:3"] {
            assert!(matches!(image(bad), Err(UserError::Form { .. })), "{bad}");
        }
        let error = image("nobody").unwrap_err();
        assert_eq!(
            error.to_string(),
            "no user \"nobody\" in the image's /etc/passwd"
        );
        assert!(
            image("root:nogroup")
                .unwrap_err()
                .to_string()
                .contains("/etc/group")
        );
        assert!(matches!(image("bad"), Err(UserError::Unknown { .. })));
        let none = UserDatabase::default();
        let request = UserRequest {
            image_user: "app",
            ..Default::default()
        };
        assert!(matches!(
            resolve(&request, &none),
            Err(UserError::NoFile { .. })
        ));
        let huge = vec![b'x'; MAX_DATABASE + 1];
        let database = UserDatabase {
            passwd: Some(&huge),
            group: None,
        };
        assert!(matches!(
            resolve(&UserRequest::default(), &database),
            Err(UserError::TooLarge { .. })
        ));
    }

    #[test]
    fn the_request_goes_before_the_image() {
        let base = UserRequest {
            image_user: "www-data:100",
            ..Default::default()
        };
        let user = resolve(
            &UserRequest {
                run_as_user: Some(1000),
                ..base
            },
            &IMAGE,
        )
        .unwrap();
        assert_eq!((user.uid, user.gid), (1000, 1000));
        let user = resolve(
            &UserRequest {
                run_as_user: Some(5),
                run_as_group: Some(6),
                ..base
            },
            &IMAGE,
        )
        .unwrap();
        assert_eq!((user.uid, user.gid), (5, 6));
        let user = resolve(
            &UserRequest {
                run_as_username: "root",
                run_as_user: Some(5),
                run_as_group: Some(6),
                ..base
            },
            &IMAGE,
        )
        .unwrap();
        assert_eq!((user.uid, user.gid), (0, 6));
        let error = resolve(
            &UserRequest {
                run_as_group: Some(6),
                ..base
            },
            &IMAGE,
        )
        .unwrap_err();
        assert_eq!(error, UserError::GroupWithoutUser { gid: 6 });
        for bad in [-1, 1 << 32, i64::from(u32::MAX), i64::MAX, i64::MIN] {
            for request in [
                UserRequest {
                    run_as_user: Some(bad),
                    ..base
                },
                UserRequest {
                    run_as_user: Some(1),
                    run_as_group: Some(bad),
                    ..base
                },
                UserRequest {
                    run_as_username: "root",
                    run_as_user: Some(bad),
                    ..base
                },
                UserRequest {
                    supplemental_groups: &[bad],
                    ..base
                },
            ] {
                assert!(
                    matches!(resolve(&request, &IMAGE), Err(UserError::Range { .. })),
                    "{request:?}"
                );
            }
        }
    }

    #[test]
    fn groups_follow_the_policy() {
        let request = UserRequest {
            run_as_user: Some(1000),
            supplemental_groups: &[1234, 1000, 1234],
            ..Default::default()
        };
        assert_eq!(
            resolve(&request, &IMAGE).unwrap().groups,
            [1000, 50000, 1234]
        );
        let strict = UserRequest {
            policy: GroupsPolicy::Strict,
            ..request
        };
        assert_eq!(resolve(&strict, &IMAGE).unwrap().groups, [1000, 1234]);
    }

    proptest! {
        #[test]
        fn never_panics(user in ".{0,30}", passwd in prop::collection::vec(any::<u8>(), 0..200), group in prop::collection::vec(any::<u8>(), 0..200)) {
            let database = UserDatabase { passwd: Some(&passwd), group: Some(&group) };
            let _ = resolve(&UserRequest { image_user: &user, ..Default::default() }, &database);
        }

        #[test]
        fn digits_never_wrap(number in any::<u128>()) {
            match image(&number.to_string()) {
                Ok(user) => prop_assert_eq!(u128::from(user.uid), number),
                Err(error) => prop_assert!(number >= u128::from(u32::MAX), "{}", error),
            }
        }
    }
}
