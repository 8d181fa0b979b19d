//! The part of Go's `text/template` that FAR's parameters need: `{{.NodeName}}`, with blanks and trim markers.
//!
//! FAR runs the whole template language. What it can do beyond this one field (conditions, pipelines, `printf`) is
//! refused with a clear error rather than half understood.

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
    #[error("failed to parse template: the only action that is supported is {{{{.NodeName}}}}")]
    Unsupported,
    /// Any of these in a Secret, whose values are not shown.
    #[error(
        "failed to parse template: the only action that is supported is {{{{.NodeName}}}} \
         (values in a node's own Secret are not templates: one that contains two braces may go there)"
    )]
    InSecret,
}

/// Puts the node's name where the template says. Borrowed: the text has no action in it.
pub(super) fn render<'a>(text: &'a str, node: &str) -> Result<Cow<'a, str>, TemplateError> {
    let mut rest = text;
    let mut out = String::new();
    let mut trim_start = false;
    while let Some((literal, after)) = rest.split_once("{{") {
        let (action, after) = after.split_once("}}").ok_or(TemplateError::Unclosed)?;
        let action = Action::parse(action)?;
        push(&mut out, literal, trim_start, action.trim_before);
        out.push_str(node);
        trim_start = action.trim_after;
        rest = after;
    }
    if rest.len() == text.len() {
        return Ok(Cow::Borrowed(text));
    }
    push(&mut out, rest, trim_start, false);
    Ok(Cow::Owned(out))
}

fn push(out: &mut String, literal: &str, trim_start: bool, trim_end: bool) {
    let literal = if trim_start { literal.trim_start_matches(SPACE) } else { literal };
    out.push_str(if trim_end { literal.trim_end_matches(SPACE) } else { literal });
}

/// `.NodeName` between its braces. A marker needs a space on its inner side, else Go reads a number or a name.
struct Action {
    trim_before: bool,
    trim_after: bool,
}

impl Action {
    fn parse(inner: &str) -> Result<Self, TemplateError> {
        let (inner, trim_before) = match inner.strip_prefix('-').filter(|rest| rest.starts_with(SPACE)) {
            Some(rest) => (rest, true),
            None => (inner, false),
        };
        let (inner, trim_after) = match inner.strip_suffix('-').filter(|rest| rest.ends_with(SPACE)) {
            Some(rest) => (rest, true),
            None => (inner, false),
        };
        let field = inner.trim_matches(SPACE).strip_prefix('.').ok_or(TemplateError::Unsupported)?;
        match field {
            "NodeName" => Ok(Self { trim_before, trim_after }),
            _ if !field.is_empty() && field.chars().all(|c| c.is_alphanumeric() || c == '_') => {
                Err(TemplateError::UnknownField(field.to_owned()))
            }
            _ => Err(TemplateError::Unsupported),
        }
    }
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
        ];
        for (text, want) in cases {
            assert_eq!(render(text, "w1").as_deref(), Ok(want), "{text:?}");
        }
    }

    #[test]
    fn the_name_itself_is_neither_trimmed_nor_rendered() {
        assert_eq!(render("a {{- .NodeName -}} b", " {{.X}} ").as_deref(), Ok("a {{.X}} b"));
    }

    #[test]
    fn only_an_action_makes_a_new_text() {
        assert!(matches!(render("static", "w1"), Ok(Cow::Borrowed("static"))));
        assert!(matches!(render("{{.NodeName}}", "{{.NodeName}}"), Ok(Cow::Owned(_))));
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
            "{{.NodeName | printf \"%s\"}}",
            "{{.NodeName.X}}",
            "{{/* c */}}",
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
