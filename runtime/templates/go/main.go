package main

import "evoke"

func main() { evoke.Handle(handle) }

func handle(event evoke.Event) error {
	var guest struct{ Name string }
	if err := event.JSON(&guest); err != nil {
		return err
	}
	if guest.Name == "" {
		return evoke.Reject("the guest has no name")
	}
	evoke.Info("greeting %s", guest.Name)
	return evoke.Publish("guest.greeted", map[string]string{"text": "Hello, " + guest.Name + "!"}, evoke.Subject(guest.Name))
}
