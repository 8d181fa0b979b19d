//! The codec against anything that may arrive, the crypto against another implementation, and the session against a BMC
//! that is played datagram by datagram.

use std::time::Duration;

use proptest::prelude::*;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::crypto::{Keys, Suite, Transcript};
use super::packet::{
    Kind, MAX_DATAGRAM, Message, OpenRequest, OpenResponse, Packet, Rakp1, Rakp2, Rakp3, Rakp4, encode_refusal,
    encode_v15, parse_v15,
};
use super::session::{Login, Session, Step, Window};
use super::{Config, Ipmi, Privilege, Quirks, host_and_port, key};
use crate::{Credentials, Error};

/// Datagrams in hexadecimal, one a line, each after its name and a blank: real ones, of ipmitool and ipmi_sim, and
/// broken ones.
const CORPUS: &str = include_str!("corpus.txt");
const SUITES: [Suite; 2] = [Suite::Three, Suite::Seventeen];

fn transcript(suite: Suite) -> Transcript {
    Transcript {
        suite,
        console: 0x0403_0201,
        bmc: 0x1413_1211,
        console_random: [0x21; 16],
        bmc_random: [0x31; 16],
        guid: [0x41; 16],
        role: 0x14,
        user: b"admin".to_vec(),
    }
}

fn keys(suite: Suite) -> Keys {
    transcript(suite).keys(b"kg")
}

/// Lets everything that parses have a go at a datagram.
fn parse(datagram: &[u8]) {
    let payloads = [Some(datagram), parse_v15(datagram), Packet::parse(datagram).map(|packet| packet.payload)];
    for payload in payloads.into_iter().flatten() {
        let _ = Message::parse(payload);
        let _ = (OpenRequest::parse(payload), OpenResponse::parse(payload));
        let _ = (Rakp1::parse(payload), Rakp2::parse(payload), Rakp3::parse(payload), Rakp4::parse(payload));
    }
    for suite in SUITES {
        assert_eq!(keys(suite).open(0x0403_0201, datagram), None);
    }
}

fn hex(text: &str) -> Vec<u8> {
    let pair = |at| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal");
    (0..text.len()).step_by(2).map(pair).collect()
}

fn shown(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_corpus_is_survived() {
    let lines = CORPUS.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let datagrams: Vec<_> = lines.map(|line| hex(line.split_once(' ').expect("a name and a datagram").1)).collect();
    assert!(datagrams.len() > 20);
    for datagram in &datagrams {
        for end in 0..=datagram.len() {
            parse(&datagram[..end]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_are_too_much(bytes in prop::collection::vec(any::<u8>(), 0..=MAX_DATAGRAM + 8)) {
        parse(&bytes);
        let mut packet = Packet::bare(Kind::Ipmi, &[]).encode();
        packet.extend(&bytes);
        parse(&packet);
    }

    #[test]
    fn what_is_written_is_read(
        (tag, status) in (any::<u8>(), 1u8..),
        (one, other) in (any::<u32>(), any::<u32>()),
        random in any::<[u8; 16]>(),
        data in prop::collection::vec(any::<u8>(), 0..=16),
    ) {
        let algorithms = [3, 4, 1];
        let open = OpenRequest { tag, privilege: status, console: one, algorithms };
        prop_assert_eq!(OpenRequest::parse(&open.encode()), Some(open));
        let response = OpenResponse { privilege: status, console: one, bmc: other, algorithms };
        prop_assert_eq!(OpenResponse::parse(&response.encode(tag)), Some((tag, Ok(response))));
        prop_assert_eq!(OpenResponse::parse(&encode_refusal(tag, status, one)), Some((tag, Err(status))));
        let rakp1 = Rakp1 { tag, bmc: one, random, role: status, user: data.clone() };
        prop_assert_eq!(Rakp1::parse(&rakp1.encode()), Some(rakp1));
        let rakp2 = Rakp2 { console: one, random, guid: random, code: data.clone() };
        prop_assert_eq!(Rakp2::parse(&rakp2.encode(tag)), Some((tag, Ok(rakp2))));
        let rakp3 = Rakp3 { tag, status, bmc: one, code: data.clone() };
        prop_assert_eq!(Rakp3::parse(&rakp3.encode()), Some(rakp3));
        let rakp4 = Rakp4 { console: one, code: data.clone() };
        prop_assert_eq!(Rakp4::parse(&rakp4.encode(tag)), Some((tag, Ok(rakp4))));
        let message = Message { to: tag, netfn: 7, from: status, sequence: 63, command: tag, data: &data };
        let bytes = message.encode();
        prop_assert_eq!(Message::parse(&bytes), Some(message));
        let bytes = encode_v15(&data);
        prop_assert_eq!(parse_v15(&bytes), Some(data.as_slice()));
        let packet = Packet { session: one, sequence: other, encrypted: true, ..Packet::bare(Kind::Rakp3, &data) };
        let bytes = packet.encode();
        prop_assert_eq!(Packet::parse(&bytes), Some(packet));
    }

    #[test]
    fn what_is_sealed_is_opened_and_no_bit_may_turn(
        message in prop::collection::vec(any::<u8>(), 0..64),
        (session, sequence) in (1u32.., 1u32..),
        at in any::<prop::sample::Index>(),
    ) {
        for suite in SUITES {
            let sealed = keys(suite).seal(session, sequence, &message).unwrap();
            prop_assert_eq!(keys(suite).open(session, &sealed), Some((sequence, message.clone())));
            prop_assert_eq!(keys(suite).open(session ^ 1, &sealed), None);
            // The first four bytes are protected by nothing, and mean nothing.
            let bit = 32 + at.index(8 * (sealed.len() - 4));
            let mut turned = sealed.clone();
            turned[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(keys(suite).open(session, &turned), None);
            prop_assert_eq!(transcript(suite).keys(b"other").open(session, &sealed), None);
        }
    }

    #[test]
    fn a_number_is_taken_once(numbers in prop::collection::vec(0u32..100, 0..200)) {
        let (mut window, mut taken, mut highest) = (Window::default(), Vec::new(), 0);
        for number in numbers {
            let fresh = number != 0 && !taken.contains(&number) && number + 32 > highest;
            prop_assert_eq!(window.take(number), fresh);
            if fresh {
                taken.push(number);
                highest = highest.max(number);
            }
        }
    }
}

/// Computed with Python's hmac, from the formulas of section 13.31.
#[test]
fn codes_are_those_of_another_implementation() {
    let expected = [
        [
            "32b387699b066372e5cfa31a8166ea2f3225071d",
            "882ba246eeda3399688255d0c7fabadae8b0106f",
            "aafa2fae5e4f6584cfe93582",
        ],
        [
            "0f0bd57bddeeb602eeef1c7659de3aff8b32834d09a546289459af6ec1ed2a57",
            "a2e4bba9a6731e46e06b6e31f71dec9b4ce1a135cb134067056cf0df6511a7f4",
            "7d15019dd799df59da78dc67dd377e1c",
        ],
    ];
    for (suite, [bmc, console, last]) in SUITES.into_iter().zip(expected) {
        let transcript = transcript(suite);
        assert_eq!(shown(&transcript.bmc_code(b"s3cr3t")), bmc);
        assert_eq!(shown(&transcript.console_code(b"s3cr3t")), console);
        assert_eq!(shown(&transcript.final_code(&transcript.keys(b"kg"))), last);
    }
}

fn login() -> Login {
    Login {
        address: "bmc:623".to_owned(),
        user: "admin".to_owned(),
        password: Zeroizing::new(b"s3cr3t".to_vec()),
        key: None,
        privilege: Privilege::Administrator,
        open_privilege: false,
    }
}

/// Polls until the session waits, and returns what it sent, and until when it waits.
fn sent(session: &mut Session<'_>, now: Instant) -> (Vec<Vec<u8>>, Instant) {
    let mut sent = Vec::new();
    loop {
        match session.poll(now).unwrap() {
            Step::Send(datagram) => sent.push(datagram),
            Step::Wait(until) => return (sent, until),
            Step::Ready => panic!("nobody answered"),
        }
    }
}

fn opening(datagram: &[u8]) -> OpenRequest {
    OpenRequest::parse(Packet::parse(datagram).unwrap().payload).unwrap()
}

#[test]
fn each_step_is_sent_twice_and_then_all_begins_afresh() {
    let login = login();
    let mut session = Session::new(&login, vec![Suite::Seventeen, Suite::Three]).unwrap();
    let mut now = Instant::now();
    let mut openings = Vec::new();
    for _ in 0..4 {
        let (datagrams, until) = sent(&mut session, now);
        openings.extend(datagrams.iter().map(|datagram| opening(datagram)));
        now = until;
    }
    assert_eq!(openings[0], openings[1]);
    assert_ne!(openings[1].console, openings[2].console);
    assert_eq!(openings[2], openings[3]);
    // Silence may mean that the BMC does not know the suite.
    assert_eq!([openings[0].algorithms, openings[2].algorithms], [[3, 4, 1], [1, 1, 1]]);
}

#[test]
fn a_refusal_counts_only_if_nothing_better_comes() {
    let login = login();
    let mut session = Session::new(&login, vec![Suite::Three]).unwrap();
    let now = Instant::now();
    let (datagrams, until) = sent(&mut session, now);
    let OpenRequest { tag, console, .. } = opening(&datagrams[0]);
    let refusal = encode_refusal(tag, 0x11, console);
    session.receive(&Packet::bare(Kind::OpenResponse, &refusal).encode(), now).unwrap();
    let response = OpenResponse { privilege: 4, console, bmc: 7, algorithms: [1, 1, 1] }.encode(tag);
    session.receive(&Packet::bare(Kind::OpenResponse, &response).encode(), now).unwrap();
    let (datagrams, _) = sent(&mut session, now);
    assert_eq!(Packet::parse(&datagrams[0]).unwrap().kind, Kind::Rakp1);

    let mut session = Session::new(&login, vec![Suite::Three]).unwrap();
    let (datagrams, _) = sent(&mut session, now);
    let OpenRequest { tag, console, .. } = opening(&datagrams[0]);
    for (tag, status) in [(tag.wrapping_add(1), 0x0d), (tag, 0x11)] {
        let refusal = encode_refusal(tag, status, console);
        session.receive(&Packet::bare(Kind::OpenResponse, &refusal).encode(), now).unwrap();
    }
    assert_eq!(session.poll(until + Duration::from_secs(1)), Err(Error::NoCipherSuite { tried: vec![3] }));
}

#[test]
fn what_nobody_asked_for_is_not_taken() {
    let login = login();
    let mut session = Session::new(&login, vec![Suite::Seventeen]).unwrap();
    let now = Instant::now();
    let (datagrams, until) = sent(&mut session, now);
    let OpenRequest { tag, console, .. } = opening(&datagrams[0]);
    let response = OpenResponse { privilege: 4, console, bmc: 7, algorithms: [0, 0, 0] }.encode(tag);
    session.receive(&Packet::bare(Kind::OpenResponse, &response).encode(), now).unwrap();
    assert_eq!(session.poll(until), Err(Error::NoCipherSuite { tried: vec![17] }));
}

#[test]
fn addresses_and_keys_are_read() {
    let read = |address: &str, port| host_and_port(address, port).map(|(host, port)| format!("{host} {port}"));
    assert_eq!(read("bmc-1.example.com", None).unwrap(), "bmc-1.example.com 623");
    assert_eq!(read("10.0.0.7:6230", None).unwrap(), "10.0.0.7 6230");
    assert_eq!(read("fd00::7", Some(624)).unwrap(), "fd00::7 624");
    assert_eq!(read("[fd00::7]:625", None).unwrap(), "fd00::7 625");
    assert_eq!(read("fe80::7%eth0", None).unwrap(), "fe80::7%eth0 623");
    for (address, port) in [("h:1", Some(2)), ("", None), ("h/x", None), ("010.0.0.7", None), ("fd00:::7", None)] {
        assert_eq!(read(address, port).unwrap_err().label(), "BMCConfigInvalid", "{address}");
    }
    let key = |hex: &str| key(&hex.to_owned().into()).unwrap().map(|key| key.to_vec());
    assert_eq!(key("0aFF"), Some(vec![10, 255]));
    assert_eq!((key(""), key("0000")), (None, None));
    assert!(Privilege::parse("callback").is_err());
    assert_eq!(Privilege::parse("OPERATOR"), Ok(Privilege::Operator));
}

#[test]
fn nothing_secret_is_shown() {
    let config = Config {
        address: "h".to_owned(),
        port: None,
        credentials: Credentials { username: "admin".to_owned(), password: "s3cr3t".to_owned().into() },
        kg: Some("c0ffee".to_owned().into()),
        suite: None,
        privilege: Privilege::default(),
        quirks: Quirks::default(),
    };
    let shown = format!("{config:?} {:?}", Ipmi::new(config.clone()).unwrap());
    assert!(!shown.contains("s3cr3t") && !shown.contains("c0ffee"), "{shown}");
}
