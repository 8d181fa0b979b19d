//! The fence-agent command line, whole process: side by side with Debian's scripts against the same BMC (`same`, and
//! `real` with other people's BMCs), where it is safer than they are (`safer`), and what it says of itself (`metadata`).

#[path = "agent_cli/bench.rs"]
mod bench;
#[path = "agent_cli/metadata.rs"]
mod metadata;
#[path = "agent_cli/real.rs"]
mod real;
#[path = "agent_cli/safer.rs"]
mod safer;
#[path = "agent_cli/same.rs"]
mod same;
