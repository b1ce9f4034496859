package evoke

import store "evoke/internal/bindings/imports/wasi_config_store"

// Config returns a setting of `allow: { config: … }`, and whether the manifest has it.
func Config(name string) (string, bool) {
	value := store.Get(name)
	if value.IsErr() {
		panic("the configuration cannot be read")
	}
	return value.Ok().SomeOr(""), value.Ok().IsSome()
}

// Secret returns a secret of `allow: { secrets: … }`, and whether the manifest has it. Do not write a secret to logs or
// events.
func Secret(name string) (string, bool) { return Config(name) }

// AllConfig returns all settings and secrets.
func AllConfig() map[string]string {
	pairs := store.GetAll()
	if pairs.IsErr() {
		panic("the configuration cannot be read")
	}
	all := make(map[string]string)
	for _, pair := range pairs.Ok() {
		all[pair.F0] = pair.F1
	}
	return all
}
