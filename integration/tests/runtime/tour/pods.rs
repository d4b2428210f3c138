//! Pods.

use anyhow::{Context as _, Result};
use podwright_cri_api::v1::ListPodSandboxRequest;
use serde_json::Value;

use super::{crictl::Crictl, runtime::number, table};

pub(super) const COMMANDS: &[&str] = &["runp", "pods", "inspectp", "stopp", "rmp"];

#[tokio::test]
async fn pods() -> Result<()> {
    let crictl = Crictl::start(COMMANDS).await?;
    let first = run(&crictl, "first").await?;
    let second = run(&crictl, "second").await?;
    list(&crictl).await?;
    filters(&crictl, &first, &second).await?;
    inspect(&crictl, &first).await?;
    stop_and_remove(&crictl, &first, &second).await?;
    crictl.finish().await
}

async fn run(crictl: &Crictl, name: &str) -> Result<String> {
    let file = crictl.pod_file(name)?;
    let run = ["runp", "--cancel-timeout", "20s", &file];
    let id = crictl.run(&run).await?;
    let status = crictl.node.cri.pod_status(&id).await?;
    assert_eq!(status.id, id);
    assert_eq!(status.metadata.context("no metadata")?.name, name);

    let run = ["runp", "--runtime", "absent", &file];
    let refused = crictl.refused(&run).await?;
    assert!(refused.contains("absent"), "{refused}");
    let schema = crictl.json(&["runp", "jsonschema"]).await?;
    assert!(schema.to_string().contains("log_directory"), "{schema}");
    Ok(id)
}

async fn list(crictl: &Crictl) -> Result<()> {
    let mut client = crictl.node.cri.client().runtime;
    let answer = client.list_pod_sandbox(ListPodSandboxRequest::default());
    let mut pods = answer.await?.into_inner().items;
    // As crictl sorts them: the newest first.
    pods.sort_by_key(|pod| std::cmp::Reverse(pod.created_at));

    let shown = crictl.json(&["pods", "-o", "json"]).await?;
    let shown = shown["items"].as_array().context("no list")?;
    assert_eq!(shown.len(), pods.len());
    for (shown, pod) in shown.iter().zip(&pods) {
        assert_eq!(shown["id"], Value::from(pod.id.as_str()));
        assert_eq!(shown["state"], Value::from(pod.state().as_str_name()));
        assert_eq!(number(&shown["createdAt"]), Some(pod.created_at));
        let metadata = pod.metadata.clone().unwrap_or_default();
        assert_eq!(shown["metadata"]["name"], Value::from(metadata.name));
        assert_eq!(shown["metadata"]["uid"], Value::from(metadata.uid));
        assert_eq!(shown["metadata"]["attempt"], Value::from(2));
        assert_eq!(
            shown["labels"]["tour"],
            Value::from(pod.labels["tour"].as_str())
        );
        assert_eq!(shown["annotations"]["note"], Value::from("of a tour"));
    }
    let ids: Vec<_> = pods.iter().map(|pod| pod.id.clone()).collect();
    let yaml = crictl.run(&["pods", "-o", "yaml"]).await?;
    for id in &ids {
        assert!(yaml.contains(id), "{yaml}");
    }
    assert_eq!(crictl.lines(&["pods", "-q"]).await?, ids);
    let table = table::rows(&crictl.run(&["pods", "--no-trunc"]).await?)?;
    assert_eq!(table::column(&table, "POD ID"), ids);
    assert_eq!(table::column(&table, "STATE"), ["Ready", "Ready"]);
    assert_eq!(table::column(&table, "NAME"), ["second", "first"]);
    assert_eq!(table::column(&table, "NAMESPACE"), ["tour", "tour"]);
    assert_eq!(table::column(&table, "ATTEMPT"), ["2", "2"]);
    let verbose = crictl.run(&["pods", "-v"]).await?;
    assert!(verbose.contains("UID: uid-first"), "{verbose}");
    Ok(())
}

async fn filters(crictl: &Crictl, first: &str, second: &str) -> Result<()> {
    for (options, expected) in [
        (&["--id", first][..], &[first][..]),
        (&["--id", &first[..20]], &[first]),
        (&["--name", "^fi"], &[first]),
        (&["--namespace", "^to"], &[second, first]),
        (&["--namespace", "other"], &[]),
        (&["--label", "tour=second"], &[second]),
        (&["--label", "tour=third"], &[]),
        (&["--state", "Ready"], &[second, first]),
        (&["--state", "NotReady"], &[]),
        (&["--latest"], &[second]),
        (&["--last", "5"], &[second, first]),
    ] {
        let shown = crictl.lines(&[&["pods", "-q"], options].concat()).await?;
        assert_eq!(shown, expected, "{options:?}");
    }
    Ok(())
}

async fn inspect(crictl: &Crictl, id: &str) -> Result<()> {
    let status = crictl.node.cri.pod_status(id).await?;
    let network = status.network.context("no network")?;
    let shown = crictl.json(&["inspectp", id]).await?;
    assert_eq!(shown["status"]["id"], Value::from(id));
    assert_eq!(shown["status"]["state"], Value::from("SANDBOX_READY"));
    assert_eq!(shown["status"]["network"]["ip"], Value::from(network.ip));
    let pid = &shown["info"]["pid"];
    assert!(pid.as_u64() > Some(1), "{shown}");
    let shown = crictl.json(&["inspectp", "-q", id]).await?;
    assert!(shown["info"].is_null(), "{shown}");
    let template = "{{.status.metadata.name}}";
    let inspect = ["inspectp", "-o", "go-template", "--template", template];
    let shown = crictl.run(&[&inspect[..], &[id]].concat()).await?;
    assert_eq!(shown, "first");
    let shown = crictl.run(&["inspectp", "-o", "table", id]).await?;
    assert!(shown.contains("Status: SANDBOX_READY"), "{shown}");
    let shown = crictl.run(&["inspectp", "-o", "yaml", id]).await?;
    assert!(shown.contains(&format!("id: {id}")), "{shown}");
    // By a filter, and several at once.
    let shown = crictl.json(&["inspectp", "--name", "^first$"]).await?;
    assert_eq!(shown["status"]["id"], Value::from(id));
    let shown = crictl.json(&["inspectp", "--last", "2"]).await?;
    assert_eq!(shown.as_array().map(Vec::len), Some(2));
    let refused = crictl.refused(&["inspectp", "absent"]).await?;
    assert!(refused.contains("NotFound"), "{refused}");
    Ok(())
}

async fn stop_and_remove(crictl: &Crictl, first: &str, second: &str) -> Result<()> {
    let shown = crictl.run(&["stopp", first]).await?;
    assert_eq!(shown, format!("Stopped sandbox {first}"));
    let not_ready = ["pods", "-q", "--state", "NotReady"];
    assert_eq!(crictl.lines(&not_ready).await?, [first]);
    let refused = crictl.refused(&["rmp", second]).await?;
    assert!(refused.contains("is running"), "{refused}");
    let shown = crictl.run(&["rmp", first]).await?;
    assert_eq!(shown, format!("Removed sandbox {first}"));
    let shown = crictl.run(&["rmp", "--force", second]).await?;
    assert!(
        shown.ends_with(&format!("Removed sandbox {second}")),
        "{shown}"
    );
    assert_eq!(crictl.run(&["pods", "-q"]).await?, "");
    crictl.run(&["runp", &crictl.pod_file("third")?]).await?;
    let shown = crictl.run(&["rmp", "-fa"]).await?;
    assert!(shown.contains("Removed sandbox"), "{shown}");
    assert_eq!(crictl.run(&["pods", "-q"]).await?, "");
    Ok(())
}
