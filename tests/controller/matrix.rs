//! The crash matrix: kill -9 at every await point of one remediation, from its creation over Done to its deletion. A proxy
//! holds the request at which the operator waits, before it is forwarded or after it was answered; the request that was not
//! forwarded is never made, and the answer never heard. Then another operator starts, and must finish safely.
//!
//! Many remediations run beside each other, each to be killed at another request of its own, and one kill serves all that
//! have come there. Not points of their own are requests that concern no node in particular: leadership, and the lists of
//! remediations and volume attachments, which are read beside or right after one that is.

use std::collections::VecDeque;
use std::time::Duration;

use agents::Command;
use anyhow::{Context as _, Result, ensure};
use futures::StreamExt as _;
use futures::future::{join_all, try_join_all};
use futures::stream::FuturesUnordered;
use k8s_openapi::api::core::v1::{Namespace, Node};
use kube::api::DeleteParams;
use kube::{Api, ResourceExt as _};
use ringfence::api::FenceAgentsRemediation;
use serde_json::json;
use testbed::api_proxy::{Catch, Point, Proxy, Request};
use testbed::rack::Layout;
use testbed::wait;
use testbed::workloads::is_running;
use tokio::time::{Instant, timeout_at};

use crate::stage::{Cluster, Remediation, SHORT, SOON, Stage, condition, phase_of, play};

/// Remediations that run beside each other: more of them only take longer to come to their points.
const LANES: usize = 16;
/// How long the first one that is held waits for the others. The operator gives an answer 5 s.
const HELD: Duration = Duration::from_secs(3);
/// Longer than a lane takes that goes right, beside so many others.
const LONG: Duration = Duration::from_secs(180);
/// How often each lane looks how far it is: the machine has better things to do.
const LOOK: Duration = Duration::from_millis(500);
/// At its beginning, at the off, while the node is released, and at the on; by what one remediation takes in requests.
const SPREAD: [(Way, &[usize]); 2] = [(Way::Api, &[2, 17, 55, 92]), (Way::Bmc, &[4, 17])];

/// Whom a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Api,
    Bmc,
}

/// Where the operator is killed: at this request of one remediation, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Spot {
    way: Way,
    point: Point,
    number: usize,
}

/// How far a lane came before the kill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Came {
    /// It was held at its spot.
    There,
    /// Others were there too long before it.
    Late,
    /// The remediation was over before.
    Never,
}

/// `make crash` runs these four.
#[test]
#[ignore = "takes a quarter of an hour"]
fn every_await_point_before_the_api_server_is_asked() {
    play(every(Way::Api, Point::Before));
}

#[test]
#[ignore = "takes a quarter of an hour"]
fn every_await_point_after_the_api_server_has_answered() {
    play(every(Way::Api, Point::After));
}

#[test]
#[ignore = "takes some minutes"]
fn every_await_point_before_the_bmc_is_asked() {
    play(every(Way::Bmc, Point::Before));
}

#[test]
#[ignore = "takes some minutes"]
fn every_await_point_after_the_bmc_has_answered() {
    play(every(Way::Bmc, Point::After));
}

/// Takes one request after the other, until a remediation is over before its request came.
async fn every(way: Way, point: Point) -> Result<()> {
    let mut rig = Rig::start().await?;
    let began = Instant::now();
    let (mut next, mut last, mut survived) = (1, usize::MAX, 0);
    let mut again = VecDeque::new();
    while next <= last || !again.is_empty() {
        let fresh = (next..last.saturating_add(1)).take(LANES.saturating_sub(again.len()));
        let numbers: Vec<_> = again.drain(..).chain(fresh).take(LANES).collect();
        next = next.max(numbers.iter().max().map_or(next, |number| number + 1));
        let spots: Vec<_> = numbers.iter().map(|&number| Spot { way, point, number }).collect();
        for (spot, came) in rig.batch(&spots, LANES).await? {
            match came {
                Came::There => survived += 1,
                Came::Late => again.push_back(spot.number),
                Came::Never => last = last.min(spot.number - 1),
            }
        }
        again.retain(|number| *number <= last);
        println!("{way:?}, {point:?}: {survived} survived, {} to be tried again, {:.0?}", again.len(), began.elapsed());
    }
    println!("{way:?}, {point:?}: {survived} points, {survived} finished, in {:.0?}", began.elapsed());
    Ok(())
}

/// Some of them.
#[test]
fn killed_at_some_await_points_it_finishes() {
    play(async {
        let mut rig = Rig::start().await?;
        let both = |way, number| [Point::Before, Point::After].map(|point| Spot { way, point, number });
        let spots = SPREAD.iter().flat_map(|(way, numbers)| numbers.iter().flat_map(|number| both(*way, *number)));
        let (mut left, mut survived): (Vec<_>, _) = (spots.collect(), 0);
        while !left.is_empty() {
            let now = std::mem::take(&mut left);
            for (spot, came) in rig.batch(&now, 0).await? {
                match came {
                    Came::There => survived += 1,
                    Came::Late => left.push(spot),
                    Came::Never => anyhow::bail!("one remediation has fewer requests than {spot:?}"),
                }
            }
        }
        println!("{survived} points, {survived} finished");
        Ok(())
    });
}

/// A cluster whose operator is behind a proxy.
struct Rig {
    cluster: Cluster,
    proxy: Proxy,
    /// Those that are set up, and how many there were ever.
    ready: Vec<Stage>,
    stages: usize,
}

/// A remediation that is under way.
struct Lane {
    spot: Spot,
    stage: Stage,
    _bmc: Proxy,
    /// The UID of the pod that is to be released.
    pod: Option<String>,
    far: Remediation,
    catch: Option<Catch>,
    came: Came,
}

impl Rig {
    async fn start() -> Result<Self> {
        let (cluster, proxy) = Cluster::proxied(None).await?;
        Ok(Self { cluster, proxy, ready: vec![], stages: 0 })
    }

    async fn set_up(&self, count: usize) -> Result<Vec<Stage>> {
        // Short, and none is the beginning of another.
        let layouts: Vec<_> = (self.stages..).take(count).map(|n| Layout::workers(&format!("m{n:04}"), 2)).collect();
        try_join_all(layouts.into_iter().map(|layout| Stage::new(&self.cluster.plane, layout))).await
    }

    /// Runs a remediation for each spot, kills the operator when they are there, and judges what becomes of them all. Sets
    /// so many stages up for the next time.
    async fn batch(&mut self, spots: &[Spot], ahead: usize) -> Result<Vec<(Spot, Came)>> {
        let missing = spots.len().saturating_sub(self.ready.len());
        let mut stages = std::mem::take(&mut self.ready);
        stages.extend(self.set_up(missing).await?);
        self.stages += missing;
        // Of a later batch it does: it has finished the one before.
        self.cluster.operator.says("Leads", SOON).await?;
        let mut lanes =
            try_join_all(stages.into_iter().zip(spots).map(|(stage, spot)| Lane::begin(stage, *spot, &self.proxy)))
                .await?;
        reach(&mut lanes).await?;
        self.cluster.operator.kill().await?;
        // What is held now is never made, or never heard.
        lanes.iter_mut().for_each(|lane| drop(lane.catch.take()));
        self.cluster.operator.restart().await?;
        // While these wait for their time to pass, the next ones are set up.
        let (judged, ready) = tokio::join!(join_all(lanes.iter().map(Lane::finishes)), self.set_up(ahead));
        self.ready = ready?;
        self.stages += ahead;
        for (lane, judged) in lanes.iter().zip(judged) {
            judged.with_context(|| format!("{}: {:?}", lane.stage.name, lane.spot))?;
        }
        try_join_all(lanes.iter().map(Lane::clear)).await?;
        Ok(lanes.iter().map(|lane| (lane.spot, lane.came)).collect())
    }
}

/// Waits until every lane is at its spot, or over, or others have waited for it for too long.
async fn reach(lanes: &mut [Lane]) -> Result<()> {
    let mut under_way: FuturesUnordered<_> = lanes.iter_mut().map(Lane::reach).collect();
    let mut deadline = Instant::now() + LONG;
    while let Ok(Some(came)) = timeout_at(deadline, under_way.next()).await {
        if came? == Came::There {
            deadline = deadline.min(Instant::now() + HELD);
        }
    }
    Ok(())
}

impl Lane {
    async fn begin(stage: Stage, spot: Spot, api: &Proxy) -> Result<Self> {
        let bmc = Proxy::before(&format!("https://{}", stage.face.address()), stage.face.ca_pem()).await?;
        stage.secret("proxy", &[("ca.crt", bmc.ca_pem())]).await?;
        let name = stage.name.clone();
        let (mut seen, number) = (0, spot.number);
        let mut counts = move |ours: bool| {
            seen += usize::from(ours);
            ours && seen == number
        };
        let catch = match spot.way {
            Way::Api => api.catch(spot.point, move |request| counts(concerns(request, &name))),
            Way::Bmc => bmc.catch(spot.point, move |_| counts(true)),
        };
        let pod = stage.site.pods("db").await?.pop().context("no pod")?.uid();
        stage.victim().hang();
        let changes = json!({
            "timeout": SHORT, "sharedparameters": {"--ipport": bmc.address().port().to_string()},
            "tls": {"caSecretName": format!("{}-proxy", stage.name)},
        });
        let far = stage.remediate(changes).await?;
        Ok(Self { spot, stage, _bmc: bmc, pod, far, catch: Some(catch), came: Came::Late })
    }

    /// Goes through the whole remediation, as far as its spot.
    async fn reach(&mut self) -> Result<Came> {
        let catch = self.catch.as_mut().context("armed")?;
        let cycle = async {
            done(&self.far).await?;
            self.far.delete().await?;
            gone(&self.far).await
        };
        tokio::select! {
            biased;
            caught = catch.caught(LONG) => {
                caught?;
                self.came = Came::There;
            }
            over = cycle => {
                over?;
                self.came = Came::Never;
            }
        }
        Ok(self.came)
    }

    /// Judges what the next operator made of it.
    async fn finishes(&self) -> Result<()> {
        let (stage, far) = (&self.stage, &self.far);
        let left = far.api.get_opt(&far.name).await?;
        if left.is_some_and(|far| far.metadata.deletion_timestamp.is_none()) {
            let done = done(far).await?;
            ensure!(condition(&done, "Succeeded").0 == "True", "{:?}", done.status);
            stage.rack.ready().await?;
            far.delete().await?;
        }
        // Anywhere: on a starved machine the node itself may be back before the scheduler has found another.
        wait::until_every(LOOK, "the pod's replacement to run", LONG, async || {
            let pods = stage.site.pods("db").await?;
            let runs = pods.iter().any(|pod| is_running(pod) && pod.uid() != self.pod);
            ensure!(runs, "instead: {:?}", pods.iter().map(|pod| (&pod.spec, &pod.status)).collect::<Vec<_>>());
            Ok(Some(()))
        })
        .await?;
        gone(far).await?;
        stage.rack.ready().await?;
        stage.node_is_clean(stage.victim(), LONG).await?;
        let commands: Vec<_> = stage.face.commands(stage.victim()).into_iter().map(|(_, command)| command).collect();
        let restored = commands.iter().position(|command| *command == Command::On).unwrap_or(commands.len());
        ensure!(commands[restored..].iter().all(|command| *command == Command::On), "{commands:?}");
        let power: Vec<_> = stage.victim().history().iter().map(|change| change.on).collect();
        ensure!(power == [false, true], "switched {power:?}");
        ensure!(stage.rack.machines()[1].history().is_empty(), "another machine was switched");
        stage.judged().await
    }

    /// Leaves nothing to the cluster that would cost the next ones time.
    async fn clear(&self) -> Result<()> {
        let nodes: Api<Node> = Api::all(self.stage.client.clone());
        for machine in self.stage.rack.machines() {
            machine.set_power(false, "the test");
            nodes.delete(machine.name(), &DeleteParams::default()).await?;
        }
        let namespaces: Api<Namespace> = Api::all(self.stage.client.clone());
        namespaces.delete(&self.stage.name, &DeleteParams::default()).await?;
        Ok(())
    }
}

async fn done(far: &Remediation) -> Result<FenceAgentsRemediation> {
    let is = async || Ok(Some(far.get().await?).filter(|far| phase_of(far) == "Done"));
    let done = wait::until_every(LOOK, "it to be Done", LONG, is).await;
    match done {
        Ok(done) => Ok(done),
        Err(error) => Err(error.context(format!("its status: {:?}", far.get().await?.status))),
    }
}

async fn gone(far: &Remediation) -> Result<()> {
    let is = async || Ok(far.api.get_opt(&far.name).await?.is_none().then_some(()));
    wait::until_every(LOOK, "it to be gone", LONG, is).await
}

fn concerns(request: &Request, name: &str) -> bool {
    request.path.contains(name) || request.body.windows(name.len()).any(|part| part == name.as_bytes())
}
