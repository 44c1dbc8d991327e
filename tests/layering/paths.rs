//! A small reader of Rust sources: which paths and words occur in a file, where, and whether in tests.

/// What is known of a file.
#[derive(Debug)]
pub(crate) struct Source {
    /// Its name below the package, with slashes.
    pub(crate) file: String,
    /// Its module, from the root: `["node", "view"]`; empty for the root itself.
    pub(crate) module: Vec<String>,
    /// Whether all of it is a test.
    pub(crate) is_test: bool,
    /// Modules that it declares for tests only.
    pub(crate) test_modules: Vec<Vec<String>>,
    /// Every path of two segments or more, one per leaf of a group.
    pub(crate) paths: Vec<Used>,
    /// Every word.
    pub(crate) words: Vec<Word>,
}

/// A path that is used.
#[derive(Debug)]
pub(crate) struct Used {
    /// `crate`, or the first segment: a crate or what is in scope.
    pub(crate) root: String,
    /// The other segments. `self` and `super` are resolved.
    pub(crate) segments: Vec<String>,
    pub(crate) line: usize,
    pub(crate) in_test: bool,
}

/// A word.
#[derive(Debug)]
pub(crate) struct Word {
    pub(crate) text: String,
    pub(crate) line: usize,
    pub(crate) in_test: bool,
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    Colons,
    Open,
    Close,
    Other(char),
}

/// Reads a file.
pub(crate) fn read(file: &str, text: &str) -> Source {
    let tokens = tokens(text);
    let module = module_of(file);
    let mut source = Source {
        file: file.to_owned(),
        module: module.clone(),
        is_test: false,
        test_modules: Vec::new(),
        paths: Vec::new(),
        words: Vec::new(),
    };
    // The inline modules around the place: name, depth of braces, and whether they are tests.
    let mut inline: Vec<(String, usize, bool)> = Vec::new();
    let (mut depth, mut test_attribute, mut path_until) = (0_usize, false, 0);
    for (at, (token, line)) in tokens.iter().enumerate() {
        let in_test = inline.iter().any(|(_, _, test)| *test);
        let here = |from| tokens[from..].iter().map(|(token, _)| token);
        match token {
            Token::Open => depth += 1,
            Token::Close => {
                depth = depth.saturating_sub(1);
                inline.retain(|(_, inside, _)| *inside <= depth);
            }
            Token::Other('#') => {
                let attribute: String = here(at + 1).take(5).map(show).collect();
                test_attribute |= attribute == "[cfg(test)";
            }
            Token::Other(';') => test_attribute = false,
            Token::Word(word) => {
                source.words.push(Word { text: word.clone(), line: *line, in_test });
                if let (true, Some(Token::Word(name)), Some(next)) =
                    (word == "mod", here(at + 1).next(), here(at + 1).nth(1))
                {
                    let mut full = module.clone();
                    full.extend(inline.iter().map(|(name, _, _)| name.clone()));
                    full.push(name.clone());
                    match next {
                        Token::Open => inline.push((name.clone(), depth + 1, test_attribute)),
                        _ if test_attribute => source.test_modules.push(full),
                        _ => {}
                    }
                    test_attribute = false;
                }
                if at >= path_until && here(at + 1).next() == Some(&Token::Colons) {
                    let mut place = module.clone();
                    place.extend(inline.iter().map(|(name, _, _)| name.clone()));
                    let mut leaves = Vec::new();
                    path_until = leaves_of(&tokens, at, &[], &mut leaves);
                    source.paths.extend(leaves.into_iter().filter_map(|leaf| {
                        let (root, segments) = resolve(&leaf, &place)?;
                        Some(Used { root, segments, line: *line, in_test })
                    }));
                }
            }
            _ => {}
        }
    }
    source
}

/// Collects the leaves of the path, or group of paths, that begins at `at`; gives the token behind it.
fn leaves_of(tokens: &[(Token, usize)], mut at: usize, before: &[String], leaves: &mut Vec<Vec<String>>) -> usize {
    let token = |at: usize| tokens.get(at).map(|(token, _)| token);
    let mut path = before.to_vec();
    loop {
        match token(at) {
            Some(Token::Word(word)) => path.push(word.clone()),
            Some(Token::Open) => {
                at += 1;
                while at < tokens.len() && token(at) != Some(&Token::Close) {
                    at = match token(at) {
                        Some(Token::Word(_)) => leaves_of(tokens, at, &path, leaves),
                        _ => at + 1,
                    };
                }
                return at + 1;
            }
            _ => {
                leaves.push(path);
                return at;
            }
        }
        if token(at + 1) != Some(&Token::Colons) {
            leaves.push(path);
            // `as name` in a group is not another path.
            return match (token(at + 1), before.is_empty()) {
                (Some(Token::Word(word)), false) if word == "as" => at + 3,
                _ => at + 1,
            };
        }
        at += 2;
    }
}

/// Splits a path used in `module` into its root and the rest.
fn resolve(path: &[String], module: &[String]) -> Option<(String, Vec<String>)> {
    let ups = path.iter().take_while(|segment| *segment == "super" || *segment == "self").count();
    let Some(first) = path.first().filter(|_| ups == 0).cloned() else {
        let supers = path[..ups].iter().filter(|segment| *segment == "super").count();
        let mut full = module[..module.len().checked_sub(supers)?].to_vec();
        full.extend_from_slice(&path[ups..]);
        return Some(("crate".to_owned(), full));
    };
    Some((first, path[1..].iter().filter(|segment| *segment != "self").cloned().collect()))
}

fn module_of(file: &str) -> Vec<String> {
    let name = file.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod");
    name.split('/').filter(|part| *part != "lib").map(str::to_owned).collect()
}

fn show(token: &Token) -> String {
    match token {
        Token::Word(word) => word.clone(),
        Token::Colons => "::".to_owned(),
        Token::Open => "{".to_owned(),
        Token::Close => "}".to_owned(),
        Token::Other(other) => other.to_string(),
    }
}

/// Cuts a text into tokens with their lines; comments, texts and characters are left out.
fn tokens(text: &str) -> Vec<(Token, usize)> {
    let mut tokens = Vec::new();
    let (mut rest, mut line) = (text, 1);
    while let Some(first) = rest.chars().next() {
        let len = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(len) = text_literal(rest) {
            len
        } else if first.is_alphabetic() || first == '_' {
            let len = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            tokens.push((Token::Word(rest[..len].to_owned()), line));
            len
        } else if rest.starts_with("::") {
            tokens.push((Token::Colons, line));
            2
        } else {
            match first {
                '{' => tokens.push((Token::Open, line)),
                '}' => tokens.push((Token::Close, line)),
                _ if first.is_whitespace() => {}
                _ => tokens.push((Token::Other(first), line)),
            }
            first.len_utf8()
        };
        line += rest[..len].matches('\n').count();
        rest = &rest[len..];
    }
    tokens
}

/// The length of the text or character that stands here; a lifetime is none.
fn text_literal(rest: &str) -> Option<usize> {
    let raw = rest.strip_prefix('b').unwrap_or(rest);
    if let Some(inner) = raw.strip_prefix('r') {
        let hashes = inner.bytes().take_while(|byte| *byte == b'#').count();
        if inner[hashes..].starts_with('"') {
            let end = format!("\"{}", "#".repeat(hashes));
            let from = rest.len() - inner.len() + hashes + 1;
            return Some(rest[from..].find(&end).map_or(rest.len(), |at| from + at + end.len()));
        }
    }
    let prefix = rest.len() - raw.len();
    let (quote, body) = (raw.chars().next()?, raw.get(1..)?);
    if quote == '"' || (quote == '\'' && is_character(body)) {
        let mut escaped = false;
        for (at, c) in body.char_indices() {
            if c == quote && !escaped {
                return Some(prefix + 1 + at + 1);
            }
            escaped = c == '\\' && !escaped;
        }
    }
    None
}

/// Whether what stands behind a single quote is a character and not a lifetime.
fn is_character(body: &str) -> bool {
    body.starts_with('\\') || body.chars().nth(1) == Some('\'')
}
