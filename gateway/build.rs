//! The page is built into the binary: when it is built anew, so must the binary be.

fn main() {
    println!("cargo:rerun-if-changed=../web-client/dist/page");
}
