//! The options of an overlay, as the two ways to mount one take them: mount(2) and fsconfig(2).

/// The longest value that fsconfig(2) takes, without its NUL.
pub const LONGEST_VALUE: usize = 255;

/// A key of fsconfig(2), and its value if it has one.
pub type Setting<'a> = (&'a [u8], Option<&'a [u8]>);

/// The options of mount(2) as fsconfig(2) takes them, the lower layers one by one. None when they are not simply divided by commas
/// and colons, or too long.
pub fn settings(options: &[u8]) -> Option<Vec<Setting<'_>>> {
    if options.iter().any(|byte| matches!(byte, b'\\' | b'"')) {
        return None;
    }
    let mut settings = Vec::new();
    for option in options.split(|&byte| byte == b',') {
        let mut halves = option.splitn(2, |&byte| byte == b'=');
        match (halves.next()?, halves.next()) {
            (b"lowerdir", Some(layers)) => {
                let layers = layers.split(|&byte| byte == b':');
                settings.extend(layers.map(|layer| (&b"lowerdir+"[..], Some(layer))));
            }
            setting => settings.push(setting),
        }
    }
    let fits = |(_, value): &Setting<'_>| value.is_none_or(|value| value.len() <= LONGEST_VALUE);
    settings.iter().all(fits).then_some(settings)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_given_one_by_one_and_all_else_as_it_is() {
        let options =
            b"lowerdir=b:a:/state/mount-points,upperdir=/c/upper,workdir=/c/work,volatile";
        let expected: [(&[u8], Option<&[u8]>); 6] = [
            (b"lowerdir+", Some(b"b")),
            (b"lowerdir+", Some(b"a")),
            (b"lowerdir+", Some(b"/state/mount-points")),
            (b"upperdir", Some(b"/c/upper")),
            (b"workdir", Some(b"/c/work")),
            (b"volatile", None),
        ];
        assert_eq!(settings(options).unwrap(), expected);
    }

    #[test]
    fn what_has_other_rules_is_left_to_mount() {
        let long = [&b"upperdir=/"[..], &[b'x'; LONGEST_VALUE]].concat();
        for options in [
            &b"lowerdir=a,upperdir=/a\\,b"[..],
            b"lowerdir=a,context=\"u:r:t:s0:c1,c2\"",
            &long,
        ] {
            assert_eq!(settings(options), None, "{options:?}");
        }
        assert!(settings(&long[..long.len() - 1]).is_some());
    }
}
