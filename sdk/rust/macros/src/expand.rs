//! Checks the function's signature and generates the component's export.

use proc_macro2::TokenStream;
use quote::{format_ident, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Error, FnArg, ItemFn, Result, Type};

pub(crate) fn function(arguments: &TokenStream, item: TokenStream) -> Result<TokenStream> {
    if !arguments.is_empty() {
        return Err(Error::new_spanned(arguments, "#[evoke::function] takes no arguments"));
    }
    let function: ItemFn =
        syn::parse2(item).map_err(|error| Error::new(error.span(), "#[evoke::function] must be on a `fn`"))?;
    let types = parameters(&function)?;
    let name = &function.sig.ident;

    // The event itself is moved into the function, so the other arguments must be created from it before the call.
    let is_event: Vec<bool> = types.iter().map(|ty| is_named(ty, "Event")).collect();
    let variables: Vec<_> = (0..types.len()).map(|index| format_ident!("argument_{index}")).collect();
    let made = variables.iter().zip(&types).zip(&is_event).filter(|(_, moved)| !**moved).map(|((variable, ty), _)| {
        quote_spanned! { ty.span() =>
            let #variable = <#ty as ::evoke::__rt::Argument>::from_event(&event, &delivery)?;
        }
    });
    let passed =
        variables.iter().zip(&is_event).map(|(variable, moved)| if *moved { quote!(event) } else { quote!(#variable) });
    let returned = match &function.sig.output {
        syn::ReturnType::Default => quote!(()),
        syn::ReturnType::Type(_, ty) => quote!(#ty),
    };
    let outcome = quote_spanned!(returned.span() => <#returned as ::evoke::__rt::Outcome>::outcome);

    Ok(quote! {
        #function

        #[allow(unsafe_code, missing_docs, clippy::all, clippy::pedantic)]
        const _: () = {
            struct Component;
            impl ::evoke::__rt::Guest for Component {
                fn handle(
                    event: ::evoke::__rt::Event,
                    delivery: ::evoke::__rt::Delivery,
                ) -> ::core::result::Result<(), ::evoke::__rt::Failure> {
                    ::evoke::__rt::start(&delivery);
                    #(#made)*
                    #outcome(#name(#(#passed),*))
                }
            }
            ::evoke::__rt::export!(Component with_types_in ::evoke::__rt::bindings);
        };
    })
}

/// Returns the parameter types of the function. The error describes what is wrong with the signature.
fn parameters(function: &ItemFn) -> Result<Vec<Type>> {
    let signature = &function.sig;
    if let Some(keyword) = &signature.asyncness {
        return Err(Error::new_spanned(keyword, "an Evoke function is synchronous: remove `async`"));
    }
    if !signature.generics.params.is_empty() {
        return Err(Error::new_spanned(&signature.generics, "an Evoke function cannot be generic"));
    }
    if signature.inputs.is_empty() {
        let message =
            "an Evoke function takes at least one of `Event`, `Json<T>`, `FileEvent`, `TimerTick`, `Delivery`";
        return Err(Error::new_spanned(&signature.ident, message));
    }
    let types = signature.inputs.iter().map(|input| match input {
        FnArg::Receiver(receiver) => {
            Err(Error::new_spanned(receiver, "#[evoke::function] must be on a free function, without `self`"))
        }
        FnArg::Typed(parameter) => match &*parameter.ty {
            Type::Reference(reference) => {
                Err(Error::new_spanned(reference, "take the parameter by value: remove the `&`"))
            }
            ty => Ok(ty.clone()),
        },
    });
    let types = types.collect::<Result<Vec<_>>>()?;
    let mut events = types.iter().filter(|ty| is_named(ty, "Event"));
    match (events.next(), events.next()) {
        (Some(_), Some(second)) => Err(Error::new_spanned(second, "the function already has an `Event` parameter")),
        _ => Ok(types),
    }
}

/// Returns true if the last segment of the type's path is `name`.
fn is_named(ty: &Type, name: &str) -> bool {
    matches!(ty, Type::Path(path) if path.path.segments.last().is_some_and(|segment| segment.ident == name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(item: &str) -> String {
        function(&TokenStream::new(), item.parse().unwrap()).unwrap_err().to_string()
    }

    #[test]
    fn a_wrong_signature_is_an_error_that_names_the_fix() {
        assert!(message("struct Handle;").contains("must be on a `fn`"));
        assert!(message("async fn handle(event: Event) {}").contains("remove `async`"));
        assert!(message("fn handle<T>(event: T) {}").contains("cannot be generic"));
        assert!(message("fn handle() {}").contains("at least one of `Event`"));
        assert!(message("fn handle(&self) {}").contains("without `self`"));
        assert!(message("fn handle(event: &Event) {}").contains("by value"));
        assert!(message("fn handle(a: Event, b: evoke::Event) {}").contains("already has an `Event`"));
    }

    #[test]
    fn the_event_is_moved_after_the_other_arguments_are_created() {
        let code = function(&TokenStream::new(), "fn f(e: Event, j: Json<u8>) {}".parse().unwrap()).unwrap();
        let code = code.to_string();
        assert!(code.contains("f (event , argument_1)"), "{code}");
        assert!(!code.contains("argument_0"), "{code}");
    }
}
