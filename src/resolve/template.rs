//! The part of Go's `text/template` that parameters need: `{{.NodeName}}`, with blanks and trim markers, comments, quoted
//! text, and `print` and `printf` of these, also in a pipeline.
//!
//! FAR runs the whole template language. The rest of it (conditions, variables, other functions) is refused with a clear
//! error rather than half understood.

use std::borrow::Cow;

/// What Go counts as space, around an action and within it.
const SPACE: [char; 4] = [' ', '\t', '\r', '\n'];

/// What is wrong with a template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// `{{` without `}}`.
    #[error("failed to parse template: unclosed action")]
    Unclosed,
    /// A field that there is not.
    #[error("failed to execute template: can't evaluate field {0}; the only one is {{{{.NodeName}}}}")]
    UnknownField(String),
    /// Anything else between `{{` and `}}`.
    #[error(
        "failed to parse template: only {{{{.NodeName}}}}, quoted text, print and printf with %s are supported between \
         the braces"
    )]
    Unsupported,
    /// Any of these in a Secret, whose values are not shown.
    #[error(
        "failed to parse template: only {{{{.NodeName}}}}, quoted text, print and printf with %s are supported between \
         the braces (values in a node's own Secret are not templates: one that contains two braces may go there)"
    )]
    InSecret,
}

/// A text with the node's name in its place.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Rendered<'a> {
    /// Borrowed: there was no action in it.
    pub(super) text: Cow<'a, str>,
    /// Whether the text depends on the node.
    pub(super) names_node: bool,
}

/// Puts the node's name where the template says.
pub(super) fn render<'a>(text: &'a str, node: &str) -> Result<Rendered<'a>, TemplateError> {
    let (mut rest, mut out) = (text, String::new());
    let (mut trim_start, mut names_node) = (false, false);
    while let Some((literal, after)) = rest.split_once("{{") {
        if !after.contains("}}") {
            return Err(TemplateError::Unclosed);
        }
        let (action, after) = Action::parse(after, node)?;
        push(&mut out, literal, trim_start, action.trim_before);
        out.push_str(&action.value);
        names_node |= action.names_node;
        trim_start = action.trim_after;
        rest = after;
    }
    if rest.len() == text.len() {
        return Ok(Rendered { text: Cow::Borrowed(text), names_node: false });
    }
    push(&mut out, rest, trim_start, false);
    Ok(Rendered { text: Cow::Owned(out), names_node })
}

fn push(out: &mut String, literal: &str, trim_start: bool, trim_end: bool) {
    let literal = if trim_start { literal.trim_start_matches(SPACE) } else { literal };
    out.push_str(if trim_end { literal.trim_end_matches(SPACE) } else { literal });
}

/// What stands between two pairs of braces, evaluated. A trim marker needs a space on its inner side, else Go reads a
/// number or a name.
#[derive(Default)]
struct Action {
    value: String,
    names_node: bool,
    trim_before: bool,
    trim_after: bool,
}

impl Action {
    /// Reads up to and with the closing braces; returns what follows them.
    fn parse<'a>(text: &'a str, node: &str) -> Result<(Self, &'a str), TemplateError> {
        let mut action = Self::default();
        let mut rest = text;
        if let Some(after) = text.strip_prefix('-').filter(|after| after.starts_with(SPACE)) {
            (rest, action.trim_before) = (after, true);
        }
        // A comment touches its braces, or the marker's one space.
        let comment = if action.trim_before { rest.trim_start_matches(SPACE) } else { rest };
        if let Some(inner) = comment.strip_prefix("/*") {
            rest = inner.split_once("*/").ok_or(TemplateError::Unclosed)?.1;
            return action.close(rest).ok_or(TemplateError::Unsupported);
        }
        let mut piped = None;
        loop {
            let (function, operands, after) = action.command(rest, node)?;
            piped = Some(call(function, operands, piped)?);
            match after.strip_prefix('|') {
                Some(next) => rest = next,
                None => {
                    action.value = piped.unwrap_or_default();
                    return action.close(after).ok_or(TemplateError::Unsupported);
                }
            }
        }
    }

    fn close(mut self, text: &str) -> Option<(Self, &str)> {
        let blank = text.trim_start_matches(SPACE);
        if let Some(rest) = blank.strip_prefix("-}}").filter(|_| blank.len() < text.len()) {
            self.trim_after = true;
            return Some((self, rest));
        }
        blank.strip_prefix("}}").map(|rest| (self, rest))
    }

    /// One command of a pipeline: a function's name, if there is one, and operands with spaces between them. Returns what
    /// follows: `|`, or the end with the space before it.
    fn command<'a>(
        &mut self,
        text: &'a str,
        node: &str,
    ) -> Result<(Option<&'a str>, Vec<String>, &'a str), TemplateError> {
        let (mut function, mut operands) = (None, Vec::new());
        let (mut rest, mut apart) = (text, true);
        loop {
            let next = rest.trim_start_matches(SPACE);
            let spaced = next.len() < rest.len();
            if next.is_empty() || next.starts_with(['|', '}']) || spaced && next.starts_with("-}}") {
                let after = if next.starts_with('|') { next } else { rest };
                return Ok((function, operands, after));
            }
            if !apart && !spaced {
                return Err(TemplateError::Unsupported);
            }
            apart = false;
            let word = next.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(next.len());
            if let Some(field) = next.strip_prefix("$.").or_else(|| next.strip_prefix('.')) {
                let end = field.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(field.len());
                match &field[..end] {
                    "NodeName" => operands.push(node.to_owned()),
                    "" => return Err(TemplateError::Unsupported),
                    other => return Err(TemplateError::UnknownField(other.to_owned())),
                }
                self.names_node = true;
                rest = &field[end..];
            } else if let Some(quoted) = next.strip_prefix('"') {
                let (text, after) = unquote(quoted)?;
                operands.push(text);
                rest = after;
            } else if let Some(raw) = next.strip_prefix('`') {
                let (text, after) = raw.split_once('`').ok_or(TemplateError::Unsupported)?;
                operands.push(text.replace('\r', ""));
                rest = after;
            } else if word > 0 && function.is_none() && operands.is_empty() {
                function = Some(&next[..word]);
                rest = &next[word..];
            } else {
                return Err(TemplateError::Unsupported);
            }
        }
    }
}

/// Applies one command; what came through the pipe is its last operand.
fn call(function: Option<&str>, mut operands: Vec<String>, piped: Option<String>) -> Result<String, TemplateError> {
    let alone = piped.is_none() && operands.len() == 1;
    operands.extend(piped);
    match function {
        None if alone => operands.pop().ok_or(TemplateError::Unsupported),
        Some("print") => Ok(operands.concat()),
        Some("printf") => {
            let mut operands = operands.into_iter();
            let format = operands.next().ok_or(TemplateError::Unsupported)?;
            let text = printf(&format, &mut operands)?;
            if operands.next().is_some() { Err(TemplateError::Unsupported) } else { Ok(text) }
        }
        None | Some(_) => Err(TemplateError::Unsupported),
    }
}

/// `%s` and `%v` of texts, and `%%`.
fn printf(format: &str, operands: &mut impl Iterator<Item = String>) -> Result<String, TemplateError> {
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        match (c, if c == '%' { chars.next() } else { None }) {
            ('%', Some('s' | 'v')) => out.push_str(&operands.next().ok_or(TemplateError::Unsupported)?),
            ('%', Some('%')) => out.push('%'),
            ('%', _) => return Err(TemplateError::Unsupported),
            (c, _) => out.push(c),
        }
    }
    Ok(out)
}

/// Reads a quoted text after its first quote; returns what follows its last.
fn unquote(text: &str) -> Result<(String, &str), TemplateError> {
    let mut out = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((out, &text[at + 1..])),
            '\n' => return Err(TemplateError::Unsupported),
            '\\' => match chars.next() {
                Some((_, c @ ('"' | '\\'))) => out.push(c),
                Some((_, 'n')) => out.push('\n'),
                Some((_, 't')) => out.push('\t'),
                Some(_) | None => return Err(TemplateError::Unsupported),
            },
            c => out.push(c),
        }
    }
    Err(TemplateError::Unsupported)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renders_what_go_renders() {
        let cases = [
            ("", ""),
            ("static", "static"),
            ("a } b }} c { d", "a } b }} c { d"),
            ("{{.NodeName}}", "w1"),
            ("{{ .NodeName }}", "w1"),
            ("{{\t.NodeName\n}}", "w1"),
            ("bmc-{{.NodeName}}.example.com", "bmc-w1.example.com"),
            ("{{.NodeName}}{{.NodeName}}", "w1w1"),
            ("a {{- .NodeName -}} b", "aw1b"),
            ("a {{- .NodeName }} b", "aw1 b"),
            ("a {{ .NodeName -}} \t\r\n b", "a w1b"),
            ("{{.NodeName -}} {{- .NodeName}}", "w1w1"),
            (" {{.NodeName}} ", " w1 "),
            ("{{.NodeName}}}", "w1}"),
            ("{{$.NodeName}}", "w1"),
            ("a{{/* }} is no end */}}b", "ab"),
            ("a {{- /* c */ -}} b", "ab"),
            (r#"p{{"{{"}}w"#, "p{{w"),
            (r#"{{"}}"}}"#, "}}"),
            ("{{`a\\`}}", "a\\"),
            (r#"{{"a\"\\"}}"#, r#"a"\"#),
            (r#"{{.NodeName | printf "%s"}}"#, "w1"),
            (r#"{{.NodeName|printf "bmc-%s.%s" "x"}}"#, "bmc-x.w1"),
            (r#"{{printf "%v at 100%%" .NodeName}}"#, "w1 at 100%"),
            (r#"{{- print "bmc-" $.NodeName -}} "#, "bmc-w1"),
            (r#"{{ "a" | print "b" | print "c" }}"#, "cba"),
            ("{{print}}", ""),
        ];
        for (text, want) in cases {
            assert_eq!(rendered(text, "w1"), want, "{text:?}");
        }
    }

    #[test]
    fn the_name_itself_is_neither_trimmed_nor_rendered() {
        assert_eq!(rendered("a {{- .NodeName -}} b", " {{.X}} "), "a {{.X}} b");
    }

    #[test]
    fn what_depends_on_the_node_is_told() {
        for (text, names) in
            [("static", false), (r#"{{"static"}}"#, false), ("{{.NodeName}}", true), ("{{/**/}}", false)]
        {
            assert_eq!(render(text, "w1").expect("a template").names_node, names, "{text}");
        }
        assert!(render("{{.NodeName | printf `%s`}}", "w1").expect("a template").names_node);
    }

    fn rendered(text: &str, node: &str) -> String {
        render(text, node).unwrap_or_else(|error| panic!("{text:?}: {error}")).text.into_owned()
    }

    #[test]
    fn refuses_the_rest_and_says_what() {
        for text in ["{{", "a {{.NodeName", "{{.NodeName}", "{{.NodeName}} {{"] {
            assert_eq!(render(text, "w1"), Err(TemplateError::Unclosed), "{text:?}");
        }
        for (text, field) in [("{{.Node}}", "Node"), ("{{ .nodeName }}", "nodeName"), ("{{.NodeName2}}", "NodeName2")] {
            assert_eq!(render(text, "w1"), Err(TemplateError::UnknownField(field.into())), "{text:?}");
        }
        let rest = [
            "{{}}",
            "{{ }}",
            "{{.}}",
            "{{-.NodeName}}",
            "{{.NodeName-}}",
            "{{NodeName}}",
            "{{. NodeName}}",
            "{{- -}}",
            "{{.NodeName.X}}",
            "{{ /* c */}}",
            "{{/* c */ x}}",
            "{{.NodeName | printf \"%d\"}}",
            "{{printf \"%s %s\" .NodeName}}",
            "{{printf \"\" .NodeName}}",
            "{{.NodeName \"a\"}}",
            "{{\"a\"\"b\"}}",
            "{{\"a\" | .NodeName}}",
            "{{print.NodeName}}",
            "{{\"a}}",
            "{{\"\\x\"}}",
            "{{`a}}",
            "{{.NodeName |}}",
            "{{| print}}",
            "{{print len}}",
            "{{len .NodeName}}",
            "{{$x := .NodeName}}",
            "{{range .NodeName}}{{end}}",
            "{{template \"x\"}}",
            "{{{.NodeName}}}",
            "{{if .NodeName}}",
        ];
        for text in rest {
            assert_eq!(render(text, "w1"), Err(TemplateError::Unsupported), "{text:?}");
        }
        let error = render("{{.Node}}", "w1").expect_err("no such field").to_string();
        assert!(error.contains("can't evaluate field Node"), "{error}");
        assert!(error.contains("{{.NodeName}}"), "{error}");
    }
}
