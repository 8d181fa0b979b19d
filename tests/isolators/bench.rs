//! A machine, its device with a fault, and the isolator under test. A new isolator gets a kind of device here, and rows.

use std::sync::Arc;
use std::time::Duration;

use agents::{Access, Command, Parameters, SystemUuid};
use anyhow::{Result, ensure};
use ringfence::isolate::{Device, Isolator, Scripts, Sight, State, build};
use secrecy::{ExposeSecret, SecretString};
use testbed::bmc::ipmi::{Face as IpmiFace, Fault as IpmiFault};
use testbed::bmc::outlets::{Misbehaviour, Outlets};
use testbed::bmc::redfish::{Face, Fault};
use testbed::machine::Machine;
use testbed::wait;
use tokio::time::Instant;

/// A deadline that a BMC in order keeps with ease, on a loaded machine.
const CALL: Duration = Duration::from_millis(1500);
/// One that a script keeps: it starts an interpreter first.
const SCRIPT_CALL: Duration = Duration::from_secs(15);
/// What a call may take beyond its deadline before it has broken the law.
const SLACK: Duration = Duration::from_secs(1);
/// Longer than any deadline here.
pub const SOON: Duration = Duration::from_secs(30);

/// What a device in this state may be believed to say of a machine that is on, and of one that is off.
pub struct Row {
    pub name: &'static str,
    pub fault: Behaviour,
    pub when_on: &'static [State],
    pub when_off: &'static [State],
}

/// Which device, and what is wrong with it.
pub enum Behaviour {
    Redfish(Vec<Fault>),
    Ipmi(Option<IpmiFault>),
    Script(Option<Misbehaviour>),
    /// Nothing but that we have a wrong password.
    WrongPassword(Protocol),
}

/// How a device is spoken to.
pub enum Protocol {
    Redfish,
    Ipmi,
    Script,
}

impl Row {
    pub fn is_honest(&self) -> bool {
        match &self.fault {
            Behaviour::Redfish(faults) => faults.is_empty(),
            Behaviour::Ipmi(fault) => fault.is_none(),
            Behaviour::Script(misbehaviour) => misbehaviour.is_none(),
            Behaviour::WrongPassword(_) => false,
        }
    }

    pub fn hangs(&self) -> bool {
        match &self.fault {
            Behaviour::Redfish(faults) => matches!(faults.as_slice(), [Fault::Hang]),
            Behaviour::Ipmi(fault) => *fault == Some(IpmiFault::Hang),
            Behaviour::Script(misbehaviour) => *misbehaviour == Some(Misbehaviour::Hangs),
            Behaviour::WrongPassword(_) => false,
        }
    }
}

/// Most datagrams arrive, and perhaps not enough of them in time.
const LOSSY_ON: &[State] = &[State::Running, State::Unknown];
const LOSSY_OFF: &[State] = &[State::Isolated, State::Unknown];

pub fn table() -> Vec<Row> {
    use State::{Isolated, Off, Refused, Running, Unknown};
    let redfish = |name, faults: &[Fault], when_on, when_off| Row {
        name,
        fault: Behaviour::Redfish(faults.to_vec()),
        when_on,
        when_off,
    };
    let ipmi = |name, fault, when_on, when_off| Row { name, fault: Behaviour::Ipmi(fault), when_on, when_off };
    let ms = Duration::from_millis;
    let script =
        |name, misbehaviour, when_on, when_off| Row { name, fault: Behaviour::Script(misbehaviour), when_on, when_off };
    let wrong_password =
        |name, of, when| Row { name, fault: Behaviour::WrongPassword(of), when_on: when, when_off: when };
    vec![
        redfish("honest", &[], &[Running], &[Isolated]),
        redfish("slow", &[Fault::Slow(Duration::from_millis(200))], &[Running], &[Isolated]),
        redfish("slower than the deadline", &[Fault::Slow(SOON)], &[Unknown], &[Unknown]),
        redfish("off does nothing", &[Fault::LieOff], &[Running], &[Isolated]),
        // The BMC itself lies: what its word is worth is for `decide` to weigh (I2, P2).
        redfish("says Off untold", &[Fault::HearsayOff], &[Isolated], &[Isolated]),
        redfish("says Off untold, OpenBMC", &[Fault::OpenBmc, Fault::HearsayOff], &[Running], &[Isolated]),
        redfish("drops connections", &[Fault::Drop], &[Unknown], &[Unknown]),
        redfish("hangs", &[Fault::Hang], &[Unknown], &[Unknown]),
        redfish("dead", &[Fault::Dead], &[Unknown], &[Unknown]),
        redfish("dies with the machine", &[Fault::DiesWithNode], &[Running], &[Unknown]),
        redfish("loses answers", &[Fault::LoseAnswer], &[Running], &[Isolated]),
        redfish("one request for each connection", &[Fault::SaysClose], &[Running], &[Isolated]),
        redfish("one request, and silence", &[Fault::ClosesAfter(1)], &[Running], &[Isolated]),
        redfish("refuses", &[Fault::Refuse { status: 400, times: None }], &[Running], &[Isolated]),
        redfish("conflict", &[Fault::Conflict], &[Running], &[Isolated]),
        redfish("401", &[Fault::Unauthorized], &[Refused], &[Refused]),
        redfish("503", &[Fault::Unavailable { retry_after: Some(SOON) }], &[Unknown], &[Unknown]),
        redfish("500", &[Fault::Fails(500)], &[Unknown], &[Unknown]),
        redfish("takes its time", &[Fault::PoweringOff(Duration::from_millis(300))], &[Running], &[Isolated]),
        redfish("late", &[Fault::Late(Duration::from_millis(300))], &[Running], &[Isolated]),
        redfish("no identity", &[Fault::NoIdentity], &[Running], &[Off]),
        redfish("no reset", &[Fault::NoReset], &[Running], &[Isolated]),
        redfish("no power state", &[Fault::NoPowerState], &[Unknown], &[Unknown]),
        redfish("redirects", &[Fault::Redirect(307)], &[Running], &[Isolated]),
        redfish("redirects elsewhere", &[Fault::RedirectElsewhere], &[Refused], &[Refused]),
        redfish("garbage", &[Fault::Garbage], &[Unknown], &[Unknown]),
        redfish("huge", &[Fault::Huge], &[Unknown], &[Unknown]),
        ipmi("IPMI: honest", None, &[Running], &[Isolated]),
        ipmi("IPMI: slow", Some(IpmiFault::Slow(ms(50))), &[Running], &[Isolated]),
        ipmi("IPMI: slower than the deadline", Some(IpmiFault::Slow(SOON)), &[Unknown], &[Unknown]),
        ipmi("IPMI: off does nothing", Some(IpmiFault::LieOff), &[Running], &[Isolated]),
        ipmi("IPMI: says Off untold", Some(IpmiFault::HearsayOff), &[Isolated], &[Isolated]),
        ipmi("IPMI: loses datagrams", Some(IpmiFault::Loss { percent: 20, seed: 7 }), LOSSY_ON, LOSSY_OFF),
        ipmi("IPMI: loses all", Some(IpmiFault::Loss { percent: 100, seed: 7 }), &[Unknown], &[Unknown]),
        ipmi("IPMI: duplicates", Some(IpmiFault::Duplicate), &[Running], &[Isolated]),
        ipmi("IPMI: replays", Some(IpmiFault::Replay), &[Running], &[Isolated]),
        ipmi("IPMI: forged answers", Some(IpmiFault::Forge), &[Running], &[Isolated]),
        ipmi("IPMI: tampered answers", Some(IpmiFault::Tamper), &[Unknown], &[Unknown]),
        ipmi("IPMI: loses answers", Some(IpmiFault::LoseAnswer), &[Running], &[Isolated]),
        ipmi("IPMI: hangs", Some(IpmiFault::Hang), &[Unknown], &[Unknown]),
        ipmi("IPMI: dead", Some(IpmiFault::Dead), &[Unknown], &[Unknown]),
        ipmi("IPMI: dies with the machine", Some(IpmiFault::DiesWithNode), &[Running], &[Unknown]),
        ipmi("IPMI: refuses", Some(IpmiFault::Refuse { code: 0xff, times: None }), &[Running], &[Isolated]),
        ipmi("IPMI: not when off", Some(IpmiFault::AlreadyOffRefusal), &[Running], &[Isolated]),
        ipmi("IPMI: busy", Some(IpmiFault::Busy(2)), &[Running], &[Isolated]),
        ipmi("IPMI: no sessions", Some(IpmiFault::NoSessions), &[Unknown], &[Unknown]),
        ipmi("IPMI: no identity", Some(IpmiFault::NoIdentity), &[Running], &[Off]),
        ipmi("IPMI: identity in another order", Some(IpmiFault::MixedEndianIdentity), &[Running], &[Isolated]),
        ipmi("IPMI: late", Some(IpmiFault::Late(ms(300))), &[Running], &[Isolated]),
        script("script: honest", None, &[Running], &[Off]),
        script("script: slow", Some(Misbehaviour::Slow(Duration::from_millis(300))), &[Running], &[Off]),
        script("script: slower than the deadline", Some(Misbehaviour::Slow(SOON)), &[Unknown], &[Unknown]),
        script("script: off does nothing", Some(Misbehaviour::Ignores), &[Running], &[Off]),
        script("script: refuses", Some(Misbehaviour::Refuses), &[Running], &[Off]),
        script("script: hangs", Some(Misbehaviour::Hangs), &[Unknown], &[Unknown]),
        script("script: leaves a child behind", Some(Misbehaviour::Forks), &[Running], &[Off]),
        script("script: floods", Some(Misbehaviour::Floods), &[Unknown], &[Unknown]),
        script("script: garbage", Some(Misbehaviour::Garbage), &[Unknown], &[Unknown]),
        script("script: says both", Some(Misbehaviour::SaysBoth), &[Unknown], &[Unknown]),
        script("script: says nothing", Some(Misbehaviour::SaysNothing), &[Unknown], &[Unknown]),
        script("script: OFF, exit 0", Some(Misbehaviour::Exits(0)), &[Unknown], &[Unknown]),
        script("script: OFF, exit 1", Some(Misbehaviour::Exits(1)), &[Unknown], &[Unknown]),
        // As for the BMC that lies.
        script("script: OFF untold", Some(Misbehaviour::Exits(2)), &[Off], &[Off]),
        wrong_password("wrong password", Protocol::Redfish, &[Refused]),
        wrong_password("IPMI: wrong password", Protocol::Ipmi, &[Refused]),
        // A script fails in one way for all causes.
        wrong_password("script: wrong password", Protocol::Script, &[Unknown]),
        script("script: tells its parameters", Some(Misbehaviour::Tells), &[Unknown], &[Unknown]),
    ]
}

/// A machine, its device, and the isolator under test.
pub struct Bench {
    pub machine: Arc<Machine>,
    pub isolator: Box<dyn Isolator>,
    device: Kind,
    call: Duration,
}

enum Kind {
    Redfish(Face),
    /// Whether the BMC hears that a session is over.
    Ipmi(IpmiFace, bool),
    Script(Outlets),
}

impl Bench {
    pub async fn new(row: &Row) -> Result<Self> {
        let bench = match &row.fault {
            Behaviour::Redfish(faults) => Self::redfish(faults.clone()).await?,
            Behaviour::Ipmi(fault) => Self::ipmi(fault.clone()).await?,
            Behaviour::Script(misbehaviour) => Self::script(*misbehaviour).await?,
            Behaviour::WrongPassword(Protocol::Redfish) => Self::redfish_as(wrong(), vec![]).await?,
            Behaviour::WrongPassword(Protocol::Ipmi) => Self::ipmi_as(wrong(), None).await?,
            Behaviour::WrongPassword(Protocol::Script) => Self::script_as(wrong(), Some("node-1"), None).await??,
        };
        // What can only end by its deadline need not be waited for longer.
        let never_speaks = row.when_on == [State::Unknown] && row.when_off == [State::Unknown];
        Ok(Self { call: if never_speaks { CALL } else { bench.call }, ..bench })
    }

    pub async fn redfish(faults: Vec<Fault>) -> Result<Self> {
        Self::redfish_as(None, faults).await
    }

    /// With another password than the device's, if one is given; and so below.
    async fn redfish_as(password: Option<SecretString>, faults: Vec<Fault>) -> Result<Self> {
        let machine = Machine::new("node-1");
        let face = Face::start(std::slice::from_ref(&machine)).await?;
        face.set_faults(&machine, faults);
        let mut config = face.client_config(&machine);
        config.credentials.password = password.unwrap_or(config.credentials.password);
        let device = Device {
            agent: "fence_redfish",
            address: config.base.as_str(),
            plug: config.systems_uri.as_deref(),
            expect: SystemUuid::parse(&machine.uuid().to_string()),
            access: Access::Redfish { credentials: config.credentials, tls: config.tls },
        };
        let isolator = build(device, &Scripts::new("/nowhere".as_ref(), false))?;
        Ok(Self { machine, isolator, device: Kind::Redfish(face), call: CALL })
    }

    pub async fn ipmi(fault: Option<IpmiFault>) -> Result<Self> {
        Self::ipmi_as(None, fault).await
    }

    async fn ipmi_as(password: Option<SecretString>, fault: Option<IpmiFault>) -> Result<Self> {
        let machine = Machine::new("node-1");
        let face = IpmiFace::start(std::slice::from_ref(&machine)).await?;
        let hears = matches!(fault, None | Some(IpmiFault::Slow(_) | IpmiFault::LieOff | IpmiFault::WrongIdentity(_)));
        face.set_faults(&machine, fault);
        let agents::ipmi::Config { address, mut credentials, kg, suite, privilege, quirks, .. } =
            face.client_config(&machine);
        credentials.password = password.unwrap_or(credentials.password);
        let access = Access::Ipmi { credentials, kg, suite, privilege, quirks };
        let expect = SystemUuid::parse(&machine.uuid().to_string());
        let device = Device { agent: "fence_ipmilan", address: &address, plug: None, expect, access };
        let isolator = build(device, &Scripts::new("/nowhere".as_ref(), false))?;
        Ok(Self { machine, isolator, device: Kind::Ipmi(face, hears), call: CALL })
    }

    pub async fn script(misbehaviour: Option<Misbehaviour>) -> Result<Self> {
        Self::script_at(Some("node-1"), misbehaviour).await?
    }

    /// The inner error: the isolator could not be built for such a plug.
    pub async fn script_at(plug: Option<&str>, misbehaviour: Option<Misbehaviour>) -> Result<Result<Self>> {
        Self::script_as(None, plug, misbehaviour).await
    }

    async fn script_as(
        password: Option<SecretString>,
        plug: Option<&str>,
        misbehaviour: Option<Misbehaviour>,
    ) -> Result<Result<Self>> {
        let machine = Machine::new("node-1");
        let outlets = Outlets::start(std::slice::from_ref(&machine)).await?;
        outlets.set_misbehaviour(misbehaviour);
        let password = password.unwrap_or_else(|| outlets.password().clone());
        let values = [("username", outlets.username().to_owned().into()), ("password", password)];
        let parameters = Parameters {
            values: values.map(|(name, value): (&str, SecretString)| (name.to_owned(), value)).into(),
            ip: Some("ip".to_owned()),
            ipport: Some("ipport".to_owned()),
            plug: Some("plug".to_owned()),
        };
        let address = outlets.address().to_string();
        let access = Access::Script(parameters);
        let device = Device { agent: "fence_stub", address: &address, plug, expect: None, access };
        let isolator = build(device, &Scripts::new(outlets.agent_dir(), false));
        let device = Kind::Script(outlets);
        Ok(isolator.map(|isolator| Self { machine, isolator, device, call: SCRIPT_CALL }).map_err(Into::into))
    }

    /// Looks, and holds what came to the laws of a look.
    pub async fn look(&self) -> Result<Sight> {
        let (power, commands) = (self.machine.history(), self.commands());
        let start = Instant::now();
        let sight = self.isolator.look(start + self.call).await;
        ensure!(start.elapsed() < self.call + SLACK, "a look took {:?}", start.elapsed());
        ensure!(power == self.machine.history() && commands == self.commands(), "a look changed something");
        ensure!(sight.read_at <= Instant::now(), "read in the future");
        self.keeps_its_secret(&format!("{sight:?}"))?;
        Ok(sight)
    }

    /// Sends a command, and tells whether it was accepted.
    pub async fn command(&self, command: Command) -> Result<bool> {
        let start = Instant::now();
        let by = start + self.call;
        let answer = match command {
            Command::Off => self.isolator.isolate(by).await,
            Command::On => self.isolator.restore(by).await,
        };
        ensure!(start.elapsed() < self.call + SLACK, "a command took {:?}", start.elapsed());
        if let Err(error) = &answer {
            self.keeps_its_secret(&format!("{error:?} {error}"))?;
        }
        Ok(answer.is_ok())
    }

    pub fn keeps_its_secret(&self, text: &str) -> Result<()> {
        let secret = match &self.device {
            Kind::Redfish(face) => face.password(),
            Kind::Ipmi(face, _) => face.password(),
            Kind::Script(outlets) => outlets.password(),
        };
        ensure!(!text.contains(secret.expose_secret()) && !text.contains("not-the-password"), "a secret in {text}");
        Ok(())
    }

    /// How many commands the device got, carried out or not.
    pub fn commands(&self) -> usize {
        match &self.device {
            Kind::Redfish(face) => face.commands(&self.machine).len(),
            Kind::Ipmi(face, _) => face.commands(&self.machine).len(),
            Kind::Script(outlets) => outlets.commands().len(),
        }
    }

    /// How often the device was asked anything.
    pub fn requests(&self) -> usize {
        match &self.device {
            Kind::Redfish(face) => face.requests().len(),
            Kind::Ipmi(face, _) => face.requests().len(),
            Kind::Script(outlets) => outlets.asked().len(),
        }
    }

    /// Tells whether a device that hangs has come to that.
    pub fn is_hanging(&self) -> bool {
        match &self.device {
            Kind::Redfish(face) => !face.requests().is_empty(),
            Kind::Ipmi(face, _) => face.sessions(&self.machine) > 0,
            Kind::Script(outlets) => outlets.asked().iter().any(|asked| asked.verb == "hangs"),
        }
    }

    /// Waits until no connection, process or session is left.
    pub async fn leaves_nothing_behind(&self) -> Result<()> {
        match &self.device {
            Kind::Redfish(face) => face.wait_idle(SOON).await,
            // A socket is gone with its call. Of a BMC that hangs, nobody can end a session.
            Kind::Ipmi(face, true) => face.wait_idle(SOON).await,
            Kind::Ipmi(_, false) => Ok(()),
            Kind::Script(outlets) => {
                wait::until("the script's processes to be gone", SOON, || async {
                    Ok(outlets.processes().is_empty().then_some(()))
                })
                .await
            }
        }
    }

    /// Command line and environment of the device's processes.
    pub fn seen_by_others(&self) -> String {
        let Kind::Script(outlets) = &self.device else { return String::new() };
        let files =
            outlets.processes().into_iter().flat_map(|pid| ["cmdline", "environ"].map(|f| format!("/proc/{pid}/{f}")));
        files.map(|file| String::from_utf8_lossy(&std::fs::read(file).unwrap_or_default()).into_owned()).collect()
    }
}

fn wrong() -> Option<SecretString> {
    Some("not-the-password".to_owned().into())
}
