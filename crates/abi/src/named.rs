//! Enums whose members have a name for scenarios and command lines, and a line about them for the book: one table that
//! code, help and chapters follow.

/// Declares an enum from a table `Variant = "name", "what it is";`, with `ALL`, `name()` and `describe()`; the line is each
/// variant's documentation too.
#[macro_export]
macro_rules! named {
    ($(#[$about_enum:meta])* $vis:vis enum $Enum:ident {
        $($(#[$attribute:meta])* $Variant:ident = $name:literal, $about:literal;)*
    }) => {
        $(#[$about_enum])*
        $vis enum $Enum { $(#[doc = $about] $(#[$attribute])* $Variant,)* }

        impl $Enum {
            /// Every one, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$Variant),*];

            /// Its name, in scenarios, on command lines and in output.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$Variant => $name,)* }
            }

            /// A line about it.
            #[must_use]
            pub const fn describe(self) -> &'static str {
                match self { $(Self::$Variant => $about,)* }
            }
        }
    };
}
