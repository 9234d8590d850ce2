//! A component that is no publisher.

wit_bindgen::generate!({
    inline: "
        package tests:other;

        world other {
            export greet: func() -> string;
        }
    "
});

struct Other;

impl Guest for Other {
    fn greet() -> String {
        "hello".into()
    }
}

export!(Other);
