//! The metadata are those of upstream's installed scripts to a machine, in other words.

use std::process::Stdio;

use agents::cli::Agent;
use anyhow::{Context, Result};
use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};
use tokio::process::Command;

use crate::bench::{Agents, Whose, finish};

/// Everything in the metadata but what is for people: elements with their attributes, in their order.
fn skeleton(xml: &str) -> Result<Vec<String>> {
    let mut reader = Reader::from_str(xml);
    let mut found = Vec::new();
    loop {
        match reader.read_event()? {
            Event::Start(element) | Event::Empty(element) => found.push(tag(&element)?),
            Event::End(element) => found.push(format!("/{}", element.name().as_ref())),
            Event::Eof => break,
            _ => {}
        }
    }
    // <a/> and <a></a> are one.
    found.retain(|tag| !tag.starts_with("/content") && !tag.starts_with("/action"));
    Ok(found)
}

fn tag(element: &BytesStart<'_>) -> Result<String> {
    let mut attributes = Vec::new();
    for attribute in element.attributes() {
        let attribute = attribute?;
        let name = attribute.key.as_ref().to_owned();
        if name != "shortdesc" {
            attributes.push(format!("{name}={}", attribute.value));
        }
    }
    attributes.sort();
    Ok(format!("{} {}", element.name().as_ref(), attributes.join(" ")))
}

/// What is for people.
fn words(xml: &str) -> Result<Vec<String>> {
    let mut reader = Reader::from_str(xml);
    let mut found = Vec::new();
    loop {
        match reader.read_event()? {
            Event::Text(text) => found.push(text.trim().to_owned()),
            Event::Eof => break,
            _ => {}
        }
    }
    // A name or two words can be said in one way only, and a URL is a fact.
    found.retain(|text| text.split_whitespace().count() > 3);
    Ok(found)
}

#[tokio::test]
async fn metadata_equal_upstreams_in_everything_but_words() -> Result<()> {
    let agents = Agents::new()?;
    for agent in Agent::all().map(Agent::name) {
        let mut both = Vec::new();
        for whose in [Whose::Ours, Whose::Theirs] {
            for action in ["metadata", "meta-data"] {
                let ran = agents.argv(whose, agent, &["-o", action], None).await?;
                assert_eq!(ran.code, Some(0), "{whose:?} {agent}: {}", ran.err);
                both.push(ran.out);
            }
        }
        assert_eq!(both[0], both[1], "{agent}: one action under two names");
        let (ours, theirs) = (skeleton(&both[0])?, skeleton(&both[2]).context("upstream's")?);
        assert!(ours.len() > 100);
        for (number, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
            assert_eq!(ours, theirs, "{agent}, element {number}");
        }
        assert_eq!(ours.len(), theirs.len(), "{agent}");

        let theirs = words(&both[2])?;
        for text in words(&both[0])? {
            assert!(!theirs.contains(&text), "{agent}: {text:?} is upstream's");
        }
    }
    Ok(())
}

#[tokio::test]
async fn it_can_be_asked_in_three_ways() -> Result<()> {
    let agents = Agents::new()?;
    let by_argv = agents.argv(Whose::Ours, "fence_redfish", &["--action=metadata"], None).await?;
    let by_stdin = agents.stdin(Whose::Ours, "fence_redfish", "action=metadata\n", None).await?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringfence"));
    command.args(["agent", "fence_redfish", "-o", "metadata"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let by_subcommand = finish(command, "").await?;
    assert!(by_argv.out.contains("<resource-agent name=\"fence_redfish\""));
    assert_eq!(by_argv.out, by_stdin.out);
    assert_eq!(by_argv.out, by_subcommand.out);
    Ok(())
}

#[tokio::test]
async fn help_version_and_the_manual_page_end_well() -> Result<()> {
    let agents = Agents::new()?;
    for args in [&["-h"][..], &["--help", "--action=off"], &["-V"], &["--version"], &["-o", "manpage"]] {
        let ran = agents.argv(Whose::Ours, "fence_redfish", args, None).await?;
        assert_eq!(ran.code, Some(0), "{args:?}: {}", ran.err);
        assert!(!ran.out.is_empty() && ran.err.is_empty(), "{args:?}");
    }
    Ok(())
}
