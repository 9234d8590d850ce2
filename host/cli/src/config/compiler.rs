//! Which program compiles publishers.

use outbox_host::publisher::component::Compiler;

/// The hidden command with which this program starts itself to compile a component.
pub const COMPILE: &str = "compile-component";

/// Set to `in-process` to compile within this process, for measurements that cannot include another process.
const COMPILE_VARIABLE: &str = "OUTBOX_COMPILE";

/// This program compiles publishers, in a process of its own.
pub fn compiler() -> Compiler {
    if std::env::var_os(COMPILE_VARIABLE).is_some_and(|how| how == "in-process") {
        return Compiler::InThisProcess;
    }
    Compiler::Process { program: "/proc/self/exe".into(), arguments: vec![COMPILE.into()] }
}
