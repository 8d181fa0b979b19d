//! What an agent says of itself: the XML for cluster managers, the manual page, the usage.

use std::fmt::Write as _;

use super::agent::Agent;
use super::options::{Kind, Opt, options};

/// The actions the metadata lists. `diag` is among them because upstream's is; here it is refused.
const ACTIONS: [&str; 9] = ["on", "off", "reboot", "status", "monitor", "metadata", "manpage", "validate-all", "diag"];

/// Writes the metadata as XML, in the form of ClusterLabs' `metadata.rng`.
pub(super) fn xml(agent: &Agent) -> String {
    let mut xml = String::from("<?xml version=\"1.0\" ?>\n");
    let _ = write_xml(&mut xml, agent); // A String takes everything.
    xml
}

fn write_xml(xml: &mut String, agent: &Agent) -> std::fmt::Result {
    writeln!(xml, "<resource-agent name=\"{}\" shortdesc=\"{}\" >", agent.name(), agent.shortdesc)?;
    for link in agent.symlinks() {
        writeln!(xml, "<symlink name=\"{}\" shortdesc=\"{}\"/>", link.name(), link.shortdesc)?;
    }
    writeln!(xml, "<longdesc>{}</longdesc>", agent.longdesc())?;
    writeln!(xml, "<vendor-url>{}</vendor-url>\n<parameters>", agent.vendor_url())?;
    for row in rows(&options(agent)) {
        write_parameter(xml, &row)?;
    }
    xml.push_str("</parameters>\n<actions>\n");
    for action in ACTIONS {
        // Nothing is to be unfenced when a node starts.
        let automatic = if action == "on" { " automatic=\"0\"" } else { " " };
        writeln!(xml, "\t<action name=\"{action}\"{automatic}/>")?;
    }
    xml.push_str("</actions>\n</resource-agent>\n");
    Ok(())
}

/// One `<parameter>`: an option under one of its names.
struct Row {
    name: &'static str,
    deprecated: bool,
    option: Opt,
}

/// All names of all listed options, in the order of the metadata.
fn rows(options: &[Opt]) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for option in options.iter().filter(|option| option.place.is_some()) {
        rows.push(Row { name: option.name, deprecated: false, option: *option });
        rows.extend(option.old.map(|name| Row { name, deprecated: true, option: *option }));
    }
    rows.sort_by_key(|row| (row.option.place, row.name));
    rows
}

fn write_parameter(xml: &mut String, row: &Row) -> std::fmt::Result {
    let option = &row.option;
    let history = match (row.deprecated, option.old) {
        (true, _) => " deprecated=\"1\"".to_owned(),
        (false, Some(old)) => format!(" obsoletes=\"{old}\""),
        (false, None) => String::new(),
    };
    let required = u8::from(option.required);
    writeln!(xml, "\t<parameter name=\"{}\" unique=\"0\" required=\"{required}\"{history}>", row.name)?;
    writeln!(xml, "\t\t<getopt mixed=\"{}\" />", mixed(option))?;
    let default = option.default.map(|default| format!(" default=\"{default}\"")).unwrap_or_default();
    match option.kind {
        Kind::Text => writeln!(xml, "\t\t<content type=\"string\"{default} />")?,
        Kind::Flag => writeln!(xml, "\t\t<content type=\"boolean\"{default} />")?,
        Kind::Integer => writeln!(xml, "\t\t<content type=\"integer\"{default} />")?,
        Kind::Seconds => writeln!(xml, "\t\t<content type=\"second\"{default} />")?,
        Kind::Choice(values) => {
            writeln!(xml, "\t\t<content type=\"select\"{default} >")?;
            for value in values {
                writeln!(xml, "\t\t\t<option value=\"{value}\" />")?;
            }
            writeln!(xml, "\t\t</content>")?;
        }
    }
    writeln!(xml, "\t\t<shortdesc lang=\"en\">{}</shortdesc>\n\t</parameter>", option.words)
}

/// How an option is written on the command line.
fn mixed(option: &Opt) -> String {
    let short = option.short.map(|short| format!("-{short}, ")).unwrap_or_default();
    let value = if option.argument.is_empty() { String::new() } else { format!("={}", option.argument) };
    format!("{short}--{}{value}", option.long)
}

/// Writes the options for a terminal.
pub(super) fn usage(agent: &Agent) -> String {
    let mut usage = format!("{}\n\nUsage: {} [options]\n", agent.longdesc(), agent.name());
    usage.push_str("Without options, they are read from standard input: one name=value a line.\n\nOptions:\n");
    for option in options(agent) {
        let default = option.default.map(|default| format!(" (default {default})")).unwrap_or_default();
        let _ = writeln!(usage, "  {:<32} {}{default}", mixed(&option), option.words);
    }
    usage
}

/// Writes a manual page, in roff.
pub(super) fn manpage(agent: &Agent) -> String {
    let escape = |text: &str| text.replace('\\', "\\e").replace('-', "\\-");
    let name = escape(agent.name());
    let mut page = format!(".TH {} 8 \"\" ringfence\n", agent.name().to_uppercase());
    let _ = write!(page, ".SH NAME\n{name} \\- {}\n", escape(agent.shortdesc));
    let _ = write!(page, ".SH SYNOPSIS\n.B {name}\n[options]\n.SH DESCRIPTION\n{}\n", escape(agent.longdesc()));
    page.push_str(".SH OPTIONS\nThe names in parentheses are those on standard input.\n");
    for row in rows(&options(agent)).iter().filter(|row| !row.deprecated) {
        let words = escape(row.option.words);
        let _ = write!(page, ".TP\n.B {}\n({}) {words}\n", escape(&mixed(&row.option)), escape(row.name));
    }
    let _ = write!(page, ".SH ACTIONS\n{}\n", escape(&ACTIONS.join(", ")));
    page.push_str(".SH EXIT STATUS\n0: done, or the machine is on. 1: failed. 2: status found the machine off.\n");
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xml_has_no_text_that_needs_escaping() {
        for agent in Agent::all() {
            assert!(!xml(agent).contains('&'), "{}", agent.name());
            for text in options(agent).iter().map(|o| o.words).chain([agent.longdesc(), agent.shortdesc]) {
                assert!(!text.contains(['<', '>', '"']), "{text}");
            }
        }
    }

    #[test]
    fn what_upstream_does_not_have_is_only_in_the_usage() {
        let agent = Agent::named("fence_redfish").expect("known");
        assert!(!xml(agent).contains("ca_file") && usage(agent).contains("--ca-file"));
        assert!(manpage(agent).contains("\\-\\-systems\\-uri"));
    }
}
