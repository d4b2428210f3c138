//! Pulls over HTTPS: whose certificate counts, and where secrets go.

use anyhow::Result;
use podwright_cri_api::v1::{AuthConfig, ImageSpec, PullImageRequest};
use podwright_integration::{
    images::{Compression, Entry, Image, Layer, Vocabulary},
    node::Node,
    registry::{Auth, Registry, Trust},
};
use serde_json::json;
use tonic::{Code, Status};

/// A node, and an HTTPS registry beside it with one image under the reference given.
async fn node_and_registry(trust: Trust) -> Result<(Node, Registry, String)> {
    let mut node = Node::start().await?;
    let registry = Registry::start_https().await?;
    let layers = [(
        Layer::new([Entry::file("f", 0o644, "x")]),
        Compression::Gzip,
    )];
    let image = Image::new(Vocabulary::Oci, &layers, &json!({}))?;
    registry.add("example.test/over/tls:1", &image)?;
    registry.write_own(&node.daemon.slot().path("hosts"), trust)?;
    node.settle()?;
    let reference = registry.reference("over/tls:1");
    Ok((node, registry, reference))
}

async fn pull_as(node: &Node, reference: &str, password: &str) -> Result<(), Status> {
    let request = PullImageRequest {
        image: Some(ImageSpec {
            image: reference.to_owned(),
            ..ImageSpec::default()
        }),
        auth: Some(AuthConfig {
            username: "user".to_owned(),
            password: password.to_owned(),
            ..AuthConfig::default()
        }),
        ..PullImageRequest::default()
    };
    node.cri.client().image.pull_image(request).await.map(drop)
}

#[tokio::test]
async fn a_configured_authority_is_trusted() -> Result<()> {
    let (mut node, registry, reference) = node_and_registry(Trust::Authority).await?;
    node.cri.pull(&reference).await?;
    let requests = registry.requests();
    assert!(
        requests
            .iter()
            .any(|request| request.path.contains("/blobs/")),
        "{requests:?}"
    );
    node.settle()?;
    node.finish().await
}

#[tokio::test]
async fn a_strangers_certificate_is_refused_with_the_reason() -> Result<()> {
    let (node, registry, reference) = node_and_registry(Trust::System).await?;
    let refused = node.cri.pull(&reference).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    for part in [reference.as_str(), "certificate", "UnknownIssuer"] {
        assert!(refused.message().contains(part), "no {part}: {refused}");
    }
    assert_eq!(
        registry.requests(),
        [],
        "nothing may be asked of a stranger"
    );
    node.finish().await
}

/// One host's authority says nothing about another's certificate.
#[tokio::test]
async fn an_authority_counts_for_its_host_only() -> Result<()> {
    let (node, _registry, reference) = node_and_registry(Trust::System).await?;
    let (other, hosts) = (
        Registry::start_https().await?,
        node.daemon.slot().path("hosts"),
    );
    other.write_own(&hosts, Trust::Authority)?;
    let refused = node.cri.pull(&reference).await.unwrap_err();
    assert!(refused.message().contains("UnknownIssuer"), "{refused}");
    node.finish().await
}

#[tokio::test]
async fn skip_verify_takes_any_certificate() -> Result<()> {
    let (mut node, _registry, reference) = node_and_registry(Trust::Anything).await?;
    node.cri.pull(&reference).await?;
    node.settle()?;
    node.finish().await
}

#[tokio::test]
async fn a_redirect_to_plain_http_is_refused() -> Result<()> {
    let (node, registry, reference) = node_and_registry(Trust::Authority).await?;
    let elsewhere = format!("{}/elsewhere", node.registry.origin());
    for part in ["/manifests/", "/blobs/"] {
        registry.inject(part, &format!("redirect({elsewhere})"))?;
        let refused = node.cri.pull(&reference).await.unwrap_err();
        assert!(
            refused.message().contains("from https to http")
                && refused.message().contains(&elsewhere),
            "{part}: {refused}"
        );
        registry.heal();
    }
    let followed = node.registry.requests();
    assert!(
        followed.iter().all(|request| request.path != "/elsewhere"),
        "{followed:?}"
    );
    node.check_leaks().await?;
    node.finish().await
}

#[tokio::test]
async fn credentials_go_over_tls() -> Result<()> {
    let (mut node, registry, reference) = node_and_registry(Trust::Authority).await?;
    let (user, password) = ("user".to_owned(), "password".to_owned());
    let credentials = Some((user.clone(), password.clone()));
    registry.require(Auth::Basic { user, password });
    let refused = node.cri.pull(&reference).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    assert!(pull_as(&node, &reference, "wrong").await.is_err());
    pull_as(&node, &reference, "password").await?;
    // The token server is reached over TLS as well.
    registry.require(Auth::Bearer { credentials });
    pull_as(&node, &reference, "password").await?;
    node.settle()?;
    node.finish().await
}
