// Publish an event with Go's standard library only.
//
//	cd examples/publishers/go
//	BELLWIRE_URL=http://127.0.0.1:8100 BELLWIRE_KEY=bw_... go run main.go 42
//
// Run it twice: the second time nothing is delivered, since source and id are the same.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"time"
)

const attempts = 4

var client = &http.Client{Timeout: 30 * time.Second}

func publish(body []byte) (string, error) {
	for attempt := 1; ; attempt++ {
		answer, later, err := post(body)
		// Publishing again is safe: source and id are the event's key.
		if err == nil || !later || attempt == attempts {
			return answer, err
		}
		time.Sleep(250 * time.Millisecond << attempt)
	}
}

// post returns whether a failed request may succeed later.
func post(body []byte) (string, bool, error) {
	request, err := http.NewRequest("POST", os.Getenv("BELLWIRE_URL")+"/v1/events", bytes.NewReader(body))
	if err != nil {
		return "", false, err
	}
	request.Header.Set("Authorization", "Bearer "+os.Getenv("BELLWIRE_KEY"))
	request.Header.Set("Content-Type", "application/cloudevents+json")
	response, err := client.Do(request)
	if err != nil {
		return "", true, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode >= 300 {
		err = fmt.Errorf("%s: %s", response.Status, answer)
	}
	return string(answer), response.StatusCode == 429 || response.StatusCode >= 500, err
}

func main() {
	order := "42"
	if len(os.Args) > 1 {
		order = os.Args[1]
	}
	event, err := json.Marshal(map[string]any{
		"specversion": "1.0",
		"id":          "order-" + order + "-paid",
		"source":      "/shop/orders",
		"type":        "order.paid",
		"tenant":      "acme",
		"data":        map[string]string{"order": order, "total": "19.90 EUR"},
	})
	if err != nil {
		log.Fatal(err)
	}
	receipt, err := publish(event) // durable once it returns without an error
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(receipt)
}
