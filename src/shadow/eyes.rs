//! A way to the API server that can only read: every other request ends before it leaves this process.
//!
//! RBAC says the same from the other side. This one also holds where somebody runs the shadow with rights that it should
//! not have.

use std::task::{Context, Poll};

use futures::future::{Either, Ready, err};
use http::{Method, Request, header};
use kube::client::{Body, ClientBuilder};
use kube::{Client, Config};
use tower::{BoxError, Layer, Service};

/// A client that can only read.
#[derive(Clone)]
pub struct Eyes(Client);

impl Eyes {
    /// Makes one; it repeats no request by itself.
    ///
    /// # Errors
    /// When the configuration makes no client.
    pub fn open(mut config: Config) -> kube::Result<Self> {
        config.default_retry = false;
        Ok(Self(ClientBuilder::try_from(config)?.with_layer(&GetOnly).build()))
    }

    pub(super) fn client(&self) -> Client {
        self.0.clone()
    }
}

struct GetOnly;

impl<S> Layer<S> for GetOnly {
    type Service = Filter<S>;

    fn layer(&self, inner: S) -> Filter<S> {
        Filter(inner)
    }
}

struct Filter<S>(S);

impl<S: Service<Request<Body>, Error = BoxError>> Service<Request<Body>> for Filter<S> {
    type Response = S::Response;
    type Error = BoxError;
    type Future = Either<Ready<Result<S::Response, BoxError>>, S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // Commands are run in pods by a GET that asks for another protocol.
        let reads = request.method() == Method::GET && !request.headers().contains_key(header::UPGRADE);
        match reads {
            true => Either::Right(self.0.call(request)),
            false => {
                let what = format!("a shadow only reads: no {} of {}", request.method(), request.uri().path());
                Either::Left(err(what.into()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Every method that HTTP has, and a GET that asks for another protocol: only the plain GET arrives.
    #[tokio::test]
    async fn only_a_get_leaves_this_process() {
        let arrived = Arc::new(AtomicUsize::new(0));
        let server = tower::service_fn({
            let arrived = arrived.clone();
            move |_: Request<Body>| {
                arrived.fetch_add(1, Ordering::Relaxed);
                futures::future::ok::<_, BoxError>(())
            }
        });
        let mut filter = GetOnly.layer(server);
        for method in ["POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "CONNECT", "TRACE", "get", "ANYTHING"] {
            let request = Request::builder().method(method).uri("/api/v1/nodes/n").body(Body::empty());
            let error = filter.call(request.unwrap()).await.expect_err(method);
            assert!(error.to_string().contains("/api/v1/nodes/n"), "{error}");
        }
        let exec = Request::get("/api/v1/namespaces/n/pods/p/exec").header("upgrade", "websocket").body(Body::empty());
        filter.call(exec.unwrap()).await.expect_err("a command in a pod");
        assert_eq!(arrived.load(Ordering::Relaxed), 0);
        filter.call(Request::get("/api/v1/nodes").body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(arrived.load(Ordering::Relaxed), 1);
    }
}
