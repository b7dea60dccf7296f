//! The binary `bastio`: hands over to the library, which can be tested. Must not know anything.

fn main() -> std::process::ExitCode {
    bastio::main()
}
