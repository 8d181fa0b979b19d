//! The proxy before a real API server: what flows, what is cut, stalled, caught and moved.

use std::pin::pin;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::watcher::{self, Config, Event, watcher};
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;
use testbed::api_proxy::{Point, Proxy, Request};
use testbed::controlplane::{ControlPlane, Options, client};
use testbed::wait;
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(30);
/// Longer than an API server needs for an answer, by far.
const SILENCE: Duration = Duration::from_millis(500);

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_through_the_proxy_and_what_does_not() -> Result<()> {
    let plane = ControlPlane::start(Options::default()).await?;
    let proxy = Proxy::before_api_server(&plane).await?;
    let through = client(&proxy.kubeconfig(plane.admin_kubeconfig())?).await?;
    it_streams(&maps(&through)).await.context("streaming")?;
    a_cut_and_a_stall_are_mended(&proxy, &maps(&through)).await.context("cut and stalled")?;
    a_write_is_held_back_until_nobody_waits(&proxy, &plane, &through).await.context("a write held back")?;
    an_answer_is_held_back(&proxy, &plane, &through).await.context("an answer held back")?;
    it_is_moved_to_another_server(&proxy, &plane, &maps(&through)).await.context("moved")
}

async fn it_streams(maps: &Api<ConfigMap>) -> Result<()> {
    let mut changes = watched(maps, "streamed-1").await?;
    maps.create(&PostParams::default(), &map("streamed-2")).await?;
    let Some(Ok(Event::Apply(seen))) = timeout(SOON, changes.next()).await? else { bail!("the stream broke") };
    ensure!(seen.name_any() == "streamed-2", "{}", seen.name_any());
    Ok(())
}

/// A watch that is open: it has shown the creation of `name`.
async fn watched(maps: &Api<ConfigMap>, name: &str) -> Result<BoxStream<'static, watcher::Result<Event<ConfigMap>>>> {
    let mut changes = watcher(maps.clone(), Config::default()).boxed();
    while !matches!(timeout(SOON, changes.next()).await?, Some(Ok(Event::InitDone))) {}
    maps.create(&PostParams::default(), &map(name)).await?;
    let Some(Ok(Event::Apply(seen))) = timeout(SOON, changes.next()).await? else { bail!("the stream broke") };
    ensure!(seen.name_any() == name, "{}", seen.name_any());
    Ok(changes)
}

async fn a_cut_and_a_stall_are_mended(proxy: &Proxy, maps: &Api<ConfigMap>) -> Result<()> {
    let mut changes = watched(maps, "cut").await?;
    proxy.cut();
    ensure!(matches!(timeout(SOON, changes.next()).await?, Some(Err(_)) | None), "a watch outlives the cut");
    maps.get("streamed-1").await.expect_err("it is cut");
    proxy.mend();
    maps.get("streamed-1").await?;

    proxy.stall();
    let before = proxy.requests().len();
    let mut waiting = pin!(maps.get("streamed-1"));
    timeout(SILENCE, &mut waiting).await.expect_err("it is stalled");
    ensure!(proxy.requests().len() == before, "it was forwarded");
    proxy.mend();
    timeout(SOON, waiting).await??;
    Ok(())
}

/// As a write that was on its way when its sender died: the server says what it thinks of it.
async fn a_write_is_held_back_until_nobody_waits(proxy: &Proxy, plane: &ControlPlane, through: &Client) -> Result<()> {
    let direct = maps(&plane.client());
    let stale = direct.get("streamed-1").await?;
    let mut late = proxy.catch(Point::Before, |request| request.writes("/api/v1/namespaces/default/configmaps"));
    let patch = json!({"metadata": {"resourceVersion": stale.resource_version()}, "data": {"a": "old"}});
    let writer = maps(through);
    let written =
        tokio::spawn(async move { writer.patch("streamed-1", &PatchParams::default(), &Patch::Merge(patch)).await });
    let request = late.caught(SOON).await?.clone();
    ensure!(request.json()["data"]["a"] == "old" && request.number == proxy.requests().len(), "{request:?}");
    written.abort();
    let new = Patch::Merge(json!({"data": {"a": "new"}}));
    direct.patch("streamed-1", &PatchParams::default(), &new).await?;
    let answer = late.deliver(SOON).await?;
    ensure!(answer.status == 409, "{answer:?}");
    ensure!(direct.get("streamed-1").await?.data.unwrap_or_default()["a"] == "new", "the stale one won");

    // One that nobody delivers is never made.
    let mut dropped = proxy.catch(Point::Before, is_delete);
    let writer = maps(through);
    let deleted = tokio::spawn(async move { writer.delete("streamed-1", &DeleteParams::default()).await });
    dropped.caught(SOON).await?;
    drop(dropped);
    timeout(SOON, deleted).await??.expect_err("it was not made");
    direct.get("streamed-1").await?;

    // Nor is one that is refused.
    let mut refused = proxy.catch(Point::Before, is_delete);
    let writer = maps(through);
    let deleted = tokio::spawn(async move { writer.delete("streamed-1", &DeleteParams::default()).await });
    refused.caught(SOON).await?;
    refused.refuse(http::StatusCode::INTERNAL_SERVER_ERROR)?;
    let error = timeout(SOON, deleted).await??.expect_err("it was refused");
    ensure!(matches!(&error, kube::Error::Api(status) if status.code == 500), "{error}");
    direct.get("streamed-1").await?;
    Ok(())
}

/// Carried out, and the client does not know.
async fn an_answer_is_held_back(proxy: &Proxy, plane: &ControlPlane, through: &Client) -> Result<()> {
    let mut unheard = proxy.catch(Point::After, is_delete);
    let through = maps(through);
    let mut deleted = tokio::spawn(async move { through.delete("streamed-1", &DeleteParams::default()).await });
    unheard.caught(SOON).await?;
    ensure!(unheard.answer().is_some_and(|answer| answer.status == 200), "{:?}", unheard.answer());
    ensure!(maps(&plane.client()).get_opt("streamed-1").await?.is_none(), "it is not carried out");
    timeout(SILENCE, &mut deleted).await.expect_err("the answer is held back");
    unheard.deliver(SOON).await?;
    timeout(SOON, deleted).await???;
    Ok(())
}

async fn it_is_moved_to_another_server(proxy: &Proxy, plane: &ControlPlane, maps: &Api<ConfigMap>) -> Result<()> {
    let other = plane.another_apiserver().await?;
    let mut changes = watched(maps, "moved").await?;
    let watches = proxy.count(Request::is_watch);
    proxy.point_at(other.url());
    maps.create(&PostParams::default(), &map("after-the-move")).await?;
    // kube's watcher begins anew, without a word.
    let seen = timeout(SOON, changes.next()).await?;
    ensure!(matches!(seen, Some(Ok(Event::Apply(map))) if map.name_any() == "after-the-move"), "the stream broke");
    ensure!(proxy.count(Request::is_watch) == watches + 1, "the watch stayed with the first one");
    other.pause().await?;
    timeout(SILENCE, maps.get("streamed-2")).await.expect_err("it is frozen");
    other.resume().await?;
    wait::until("the other one to answer again", SOON, || async { Ok(Some(maps.get("streamed-2").await?)) }).await?;
    proxy.point_at(&plane.url());
    maps.get("streamed-2").await?;
    Ok(())
}

fn is_delete(request: &Request) -> bool {
    request.method == http::Method::DELETE
}

fn maps(client: &Client) -> Api<ConfigMap> {
    Api::namespaced(client.clone(), "default")
}

fn map(name: &str) -> ConfigMap {
    let metadata = kube::core::ObjectMeta { name: Some(name.to_owned()), ..Default::default() };
    ConfigMap { metadata, ..ConfigMap::default() }
}
