//! The wire of a BMC: UDP, and the faults that happen there.

use std::net::SocketAddr;
use std::sync::Arc;

use agents::ipmi::packet::MAX_DATAGRAM;
use jiff::Timestamp;
use tokio::net::UdpSocket;
use tokio::time::sleep;

use super::Shared;
use super::bmc::Asked;
use super::fault::Fault;
use super::request::{Request, What};
use super::unit::Unit;

/// Serves one BMC for ever.
pub(super) async fn run(socket: UdpSocket, unit: Arc<Unit>, shared: Arc<Shared>) {
    let socket = Arc::new(socket);
    let mut buffer = [0; MAX_DATAGRAM + 1];
    loop {
        // An error is about a datagram that we sent: nobody listens there any more.
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
        if unit.is_dead() || unit.loses_one() {
            continue;
        }
        let asked = match unit.understand(&buffer[..length]) {
            Ok(Some(asked)) => asked,
            Ok(None) => continue,
            Err(error) => {
                tracing::error!(error = format!("{error:#}"), "the IPMI face can't answer");
                continue;
            }
        };
        let request = Request { at: Timestamp::now(), machine: unit.machine.name().to_owned(), what: asked.what };
        shared.log.send_modify(|log| log.push(request));
        let (socket, unit, tasks) = (socket.clone(), unit.clone(), shared.clone());
        shared.spawn(async move { answer(&socket, from, &unit, &asked, &tasks).await });
    }
}

async fn answer(socket: &UdpSocket, to: SocketAddr, unit: &Arc<Unit>, asked: &Asked, shared: &Arc<Shared>) {
    let is_command = matches!(asked.what, What::Control(_));
    let in_handshake = matches!(asked.what, What::Probe | What::Open | What::Rakp1 | What::Rakp3);
    if !in_handshake && unit.has(&Fault::Hang) {
        return;
    }
    // A sleep of no time takes tokio's next tick, a millisecond, which each round trip would be charged.
    let delay = unit.delay();
    if !delay.is_zero() {
        sleep(delay).await;
    }
    if !is_command {
        unit.released(asked.what).await;
    }
    let answered = unit.answer(asked, shared);
    if is_command {
        unit.released(asked.what).await;
    }
    let datagram = match answered {
        Ok(Some(datagram)) if !(is_command && unit.has(&Fault::LoseAnswer)) => datagram,
        Ok(_) => return,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "the IPMI face can't answer");
            return;
        }
    };
    // Dead by now, perhaps: by what it was told.
    if unit.is_dead() {
        return;
    }
    for datagram in unit.on_the_way(asked, datagram) {
        if !unit.loses_one() {
            // An error: nobody listens there any more.
            let _ = socket.send_to(&datagram, to).await;
        }
    }
}
