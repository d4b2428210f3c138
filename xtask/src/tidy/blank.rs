//! Rust text with everything blanked out that is not code, so that a rule can look for words and braces.

/// Replaces comments, and the insides of strings and characters, by spaces. Lines and columns of ASCII text stay.
pub(super) fn blank(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut after_word = false;
    while let Some(first) = rest.chars().next() {
        let taken = match first {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => block_comment(rest),
            '"' => string(rest),
            'r' | 'b' | 'c' if !after_word => prefixed_literal(rest).unwrap_or(0),
            '\'' => character(rest).unwrap_or(0),
            _ => 0,
        };
        if taken == 0 {
            out.push(first);
            after_word = first.is_alphanumeric() || first == '_';
            rest = &rest[first.len_utf8()..];
        } else {
            out.extend(
                rest[..taken]
                    .chars()
                    .map(|c| if c == '\n' { '\n' } else { ' ' }),
            );
            after_word = false;
            rest = &rest[taken..];
        }
    }
    out
}

/// The length of a block comment; they nest.
fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        let here = &text.as_bytes()[at..];
        if here.starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if here.starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    text.len()
}

/// The length of a string that starts at the quote.
fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The length of `b"…"`, `c"…"`, `r"…"`, `br#"…"#`, `b'…'`.
fn prefixed_literal(text: &str) -> Option<usize> {
    let letters = text
        .bytes()
        .take_while(|b| matches!(b, b'r' | b'b' | b'c'))
        .take(2)
        .count();
    let is_raw = text[..letters].contains('r');
    let after = &text[letters..];
    if !is_raw {
        return match after.as_bytes().first()? {
            b'"' => Some(letters + string(after)),
            b'\'' => Some(letters + character(after)?),
            _ => None,
        };
    }
    let hashes = after.bytes().take_while(|&b| b == b'#').count();
    if after.as_bytes().get(hashes) != Some(&b'"') {
        return None; // a raw identifier, r#type
    }
    let close = format!("\"{}", "#".repeat(hashes));
    let inside = &after[hashes + 1..];
    let end = inside
        .find(&close)
        .map_or(inside.len(), |at| at + close.len());
    Some(letters + hashes + 1 + end)
}

/// The length of a character literal; none for a lifetime or a label.
fn character(text: &str) -> Option<usize> {
    let inside = &text[1..];
    let mut characters = inside.chars();
    match characters.next()? {
        '\\' => {
            characters.next()?; // the escaped one may be a quote itself
            let escape = inside.len() - characters.as_str().len();
            Some(1 + escape + characters.as_str().find('\'')? + 1)
        }
        one => (characters.next()? == '\'').then(|| 1 + one.len_utf8() + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::blank;

    #[test]
    fn only_code_is_left() {
        for (text, code) in [
            ("a // b\nc", "a\nc"),
            ("a /* /* b */ } */ c", "ac"),
            (r#"f("{ \" }", 'x')"#, "f(,)"),
            (r##"f(r#"{"}"#)"##, "f()"),
            ("b'{' + br\"}\"", "+"),
            ("fn f<'a>(x: &'a str) {}", "fnf<'a>(x:&'astr){}"),
            ("'\\'' '\\u{7d}' 'é' '{'", ""),
            ("r#type b", "r#typeb"),
            ("var\"}\"", "var"),
            ("\"a\n}\" b", "\nb"),
        ] {
            let blanked = blank(text);
            assert_eq!(blanked.replace(' ', ""), code, "{text}");
            assert_eq!(blanked.chars().count(), text.chars().count(), "{text}");
        }
    }

    #[test]
    fn cut_off_text_ends() {
        for text in ["\"a", "/* a", "r#\"a", "'", "b'", "'\\", "b"] {
            assert_eq!(blank(text).len(), text.len(), "{text}");
        }
    }
}
