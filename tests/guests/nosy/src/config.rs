//! All of `wasi:config/store`.

wit_bindgen::generate!({
    inline: "
        package tests:nosy;

        world reads-config {
            import wasi:config/store@0.2.0-rc.1;
        }

        package wasi:config@0.2.0-rc.1 {
            interface store {
                variant error { upstream(string), io(string) }
                get: func(key: string) -> result<option<string>, error>;
                get-all: func() -> result<list<tuple<string, string>>, error>;
            }
        }
    ",
    generate_all,
});

use wasi::config::store;

/// Each value, and the values of some guessed names.
pub fn all() -> (Vec<(String, String)>, Vec<Option<String>>) {
    let guessed = ["api_token", "token", "secret", "secrets.api_token", "authorization", "PATH", ""];
    let values = guessed.iter().filter_map(|name| store::get(name).ok()).collect();
    (store::get_all().unwrap_or_default(), values)
}
