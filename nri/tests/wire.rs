//! Holds the compiled descriptor against `proto/nri-wire.tsv`, in both directions.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;

use podwright_nri::FILE_DESCRIPTOR_SET;
use prost::Message as _;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
    FileDescriptorSet,
    field_descriptor_proto::{Label, Type},
};

const TABLE: &str = include_str!("../proto/nri-wire.tsv");

fn file() -> FileDescriptorProto {
    let mut set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
    assert_eq!(set.file.len(), 1);
    set.file.remove(0)
}

/// A row as the table writes it: kind, of, name, number or request, type or response.
fn row(kind: &str, of: &str, name: &str, number: impl ToString, of_type: &str) -> String {
    [kind, of, name, &number.to_string(), of_type]
        .join("\t")
        .trim_end()
        .to_owned()
}

/// Without the leading `.nri.pkg.api.v1alpha1.`; a nested type is named within its message, as in the source.
fn short_name(full: &str, scope: &str) -> String {
    let name = full
        .strip_prefix(".nri.pkg.api.v1alpha1.")
        .expect("all types are of this package");
    name.strip_prefix(&format!("{scope}."))
        .unwrap_or(name)
        .to_owned()
}

fn scalar(field: &FieldDescriptorProto, scope: &str) -> String {
    match field.r#type() {
        Type::Message | Type::Enum => short_name(field.type_name(), scope),
        Type::String => "string".into(),
        Type::Bytes => "bytes".into(),
        Type::Bool => "bool".into(),
        Type::Double => "double".into(),
        Type::Int32 => "int32".into(),
        Type::Int64 => "int64".into(),
        Type::Uint32 => "uint32".into(),
        Type::Uint64 => "uint64".into(),
        other => panic!("{}: the NRI has no field of type {other:?}", field.name()),
    }
}

fn field_type(field: &FieldDescriptorProto, message: &DescriptorProto) -> String {
    let scope = message.name();
    let of_type = scalar(field, scope);
    let entry = message.nested_type.iter().find(|nested| {
        nested.name() == of_type && nested.options.as_ref().is_some_and(|o| o.map_entry())
    });
    assert!(
        field.oneof_index.is_none(),
        "{}: the NRI has no oneof and no optional",
        field.name()
    );
    match (entry, field.label()) {
        (Some(entry), _) => {
            let (key, value) = (&entry.field[0], &entry.field[1]);
            format!("map<{},{}>", scalar(key, scope), scalar(value, scope))
        }
        (None, Label::Repeated) => format!("repeated {of_type}"),
        (None, Label::Optional) => of_type,
        (None, Label::Required) => panic!("{}: proto3 has no required fields", field.name()),
    }
}

fn enum_rows(prefix: &str, of: &EnumDescriptorProto) -> Vec<String> {
    let name = format!("{prefix}{}", of.name());
    of.value
        .iter()
        .map(move |value| row("enum", &name, value.name(), value.number(), ""))
        .collect()
}

fn message_rows(message: &DescriptorProto) -> Vec<String> {
    let name = message.name();
    let mut rows: Vec<_> = message
        .field
        .iter()
        .map(|field| {
            row(
                "message",
                name,
                field.name(),
                field.number(),
                &field_type(field, message),
            )
        })
        .collect();
    if rows.is_empty() {
        rows.push(row("message", name, "(empty)", "", ""));
    }
    for nested in &message.nested_type {
        assert!(
            nested.options.as_ref().is_some_and(|o| o.map_entry()),
            "{}",
            nested.name()
        );
    }
    rows.extend(
        message
            .enum_type
            .iter()
            .flat_map(|of| enum_rows(&format!("{name}."), of)),
    );
    rows
}

fn rpc_rows(file: &FileDescriptorProto) -> Vec<String> {
    let mut rows = Vec::new();
    for service in &file.service {
        let of = format!("{}.{}", file.package(), service.name());
        for method in &service.method {
            assert!(
                !method.client_streaming() && !method.server_streaming(),
                "{}: the NRI has no streams",
                method.name()
            );
            let request = short_name(method.input_type(), "");
            let response = short_name(method.output_type(), "");
            rows.push(row("rpc", &of, method.name(), request, &response));
        }
    }
    rows
}

#[test]
fn descriptor_equals_the_table() {
    let file = file();
    let rows = rpc_rows(&file)
        .into_iter()
        .chain(file.message_type.iter().flat_map(message_rows))
        .chain(file.enum_type.iter().flat_map(|of| enum_rows("", of)));
    let mut ours = BTreeSet::new();
    for row in rows {
        assert!(ours.insert(row.clone()), "twice: {row}");
    }
    let table: BTreeSet<_> = TABLE
        .lines()
        .skip(1)
        .map(|l| l.trim_end().to_owned())
        .collect();
    let missing: Vec<_> = table.difference(&ours).collect();
    let extra: Vec<_> = ours.difference(&table).collect();
    assert!(
        missing.is_empty() && extra.is_empty(),
        "missing {missing:#?}\nextra {extra:#?}"
    );
    assert_eq!(
        table.len(),
        TABLE.lines().count() - 1,
        "a row of the table stands twice"
    );
}

#[test]
fn the_services_are_those_of_the_package() {
    assert_eq!(file().package(), "nri.pkg.api.v1alpha1");
    assert_eq!(file().syntax(), "proto3");
}
