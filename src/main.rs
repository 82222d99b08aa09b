//! Arguments in, one call out.
fn main() {
    for (n, y) in vpptoken_operator::api::crds_as_files().unwrap_or_default() {
        println!("---\n# {n}\n{y}");
    }
}
