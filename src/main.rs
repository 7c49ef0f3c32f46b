fn main() -> std::process::ExitCode {
    bedrail::cli::main()
}
