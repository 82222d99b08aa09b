//! The CustomResourceDefinitions as the types describe them, with what the derive can't say.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, JSONSchemaProps, JSONSchemaPropsOrArray,
};
use kube::CustomResourceExt;
use serde_json::json;

use super::{ClusterGraphTenant, GraphTenant, VppToken};

/// The three CustomResourceDefinitions, ready to be applied.
pub fn crds() -> Vec<CustomResourceDefinition> {
    [VppToken::crd(), GraphTenant::crd(), ClusterGraphTenant::crd()].into_iter().map(finished).collect()
}

/// The definitions as YAML, each with the name of its file.
///
/// # Errors
/// When a definition can't be written as YAML, which no valid definition does.
pub fn crds_as_files() -> Result<Vec<(String, String)>, serde_yaml_ng::Error> {
    crds()
        .into_iter()
        .map(|crd| {
            let name = format!("{}_{}.yaml", crd.spec.group, crd.spec.names.plural);
            let yaml = serde_yaml_ng::to_string(&crd)?;
            Ok((name, format!("# Generated from src/api by `make generate`. Do not edit.\n{yaml}")))
        })
        .collect()
}

/// Adds the default of `status` and makes optional fields optional, not nullable.
///
/// An object that was not reconciled yet has `observedGeneration: -1`, so that no tool takes it for reconciled. A
/// default on the field alone does nothing while `status` is absent, so it is on `status`.
fn finished(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    let schemas =
        crd.spec.versions.iter_mut().filter_map(|version| version.schema.as_mut()?.open_api_v3_schema.as_mut());
    for schema in schemas {
        without_null(schema);
        if let Some(status) = schema.properties.as_mut().and_then(|properties| properties.get_mut("status")) {
            status.default = Some(JSON(json!({ "observedGeneration": -1 })));
        }
    }
    crd
}

/// A field that is written as null would satisfy `has(self.field)` in the validation rules without having a value.
fn without_null(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    for property in schema.properties.iter_mut().flat_map(|properties| properties.values_mut()) {
        without_null(property);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = schema.items.as_mut() {
        without_null(items);
    }
}
