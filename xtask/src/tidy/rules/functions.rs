//! Functions and their lengths.

/// A function with a body.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Function {
    pub(super) name: String,
    /// The line of `fn`, from 1.
    pub(super) line: usize,
    /// From that line to the closing brace's.
    pub(super) lines: usize,
}

/// The functions in blanked Rust code, nested ones too.
pub(super) fn functions(code: &str) -> Vec<Function> {
    let mut functions = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let signature = &code[at + "fn ".len()..];
        let name: String = signature
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect();
        if name.is_empty() {
            continue; // a type, such as `impl Fn (…)`
        }
        let Some(length) = body_end(signature) else {
            continue;
        };
        let line = code[..at].matches('\n').count() + 1;
        functions.push(Function {
            name,
            line,
            lines: signature[..length].matches('\n').count() + 1,
        });
    }
    functions
}

/// The offset of the closing brace of the first body; none for a declaration that ends with `;`.
fn body_end(signature: &str) -> Option<usize> {
    let (mut braces, mut brackets) = (0, 0);
    for (at, byte) in signature.bytes().enumerate() {
        match byte {
            b'(' | b'[' => brackets += 1,
            b')' | b']' => brackets -= 1,
            b';' if braces == 0 && brackets == 0 => return None,
            b'{' => braces += 1,
            b'}' => {
                braces -= 1;
                if braces == 0 && brackets == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_measured() {
        let code = "trait T { fn a(&self, x: [u8; 4]); }\nfn b(x: [u8; 2]) -> u8 {\n  if x { y }\n  fn c() {}\n}\nlet f: fn (u8);\n";
        let found: Vec<_> = functions(code)
            .into_iter()
            .map(|f| (f.name, f.line, f.lines))
            .collect();
        assert_eq!(found, [("b".to_owned(), 2, 4), ("c".to_owned(), 4, 1)]);
    }
}
