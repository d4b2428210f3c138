//! The image's passwd(5) and group(5), line by line. Pure; a line that is not as it should be is passed over.

use super::NO_ID;

/// `name:password:uid:gid:comment:home:shell`; lines that are not so are passed over, as the C library does.
pub(super) struct PasswdEntry<'a> {
    pub(super) name: &'a [u8],
    pub(super) uid: u32,
    pub(super) gid: u32,
    home: &'a [u8],
}

impl PasswdEntry<'_> {
    pub(super) fn home(&self) -> Option<String> {
        let home = std::str::from_utf8(self.home).ok()?;
        (home.starts_with('/') && !home.chars().any(char::is_control)).then(|| home.to_owned())
    }
}

/// `name:password:gid:member,member`.
pub(super) struct GroupEntry<'a> {
    pub(super) name: &'a [u8],
    pub(super) gid: u32,
    members: &'a [u8],
}

impl GroupEntry<'_> {
    pub(super) fn has_member(&self, name: &[u8]) -> bool {
        self.members
            .split(|byte| *byte == b',')
            .any(|member| member.trim_ascii() == name)
    }
}

fn lines(contents: Option<&[u8]>) -> impl Iterator<Item = &[u8]> {
    let lines = contents.unwrap_or_default().split(|byte| *byte == b'\n');
    lines
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .filter(|line| !line.starts_with(b"#"))
}

pub(super) fn entries(passwd: Option<&[u8]>) -> impl Iterator<Item = PasswdEntry<'_>> {
    lines(passwd).filter_map(|line| {
        let mut fields = line.split(|byte| *byte == b':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let uid = number(fields.nth(1)?)?;
        let gid = number(fields.next()?)?;
        let home = fields.nth(1).unwrap_or_default();
        Some(PasswdEntry {
            name,
            uid,
            gid,
            home,
        })
    })
}

pub(super) fn group_entries(group: Option<&[u8]>) -> impl Iterator<Item = GroupEntry<'_>> {
    lines(group).filter_map(|line| {
        let mut fields = line.split(|byte| *byte == b':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let gid = number(fields.nth(1)?)?;
        Some(GroupEntry {
            name,
            gid,
            members: fields.next().unwrap_or_default(),
        })
    })
}

fn number(field: &[u8]) -> Option<u32> {
    if !field.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(field)
        .ok()?
        .parse()
        .ok()
        .filter(|id| *id != NO_ID)
}
