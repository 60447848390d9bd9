package firewall

import (
	"regexp"
	"strconv"
	"time"
)

// clockMatch is when a section counts, by the router's wall clock.
type clockMatch struct {
	from, until         *time.Time // compared as wall clock
	fromHour, untilHour *int       // seconds since midnight
	days                map[string]bool
	notDays             bool
}

func (x *clockMatch) fits(now time.Time) bool {
	wall := time.Date(now.Year(), now.Month(), now.Day(), now.Hour(), now.Minute(), now.Second(), 0, time.UTC)
	if x.from != nil && wall.Before(*x.from) || x.until != nil && wall.After(*x.until) {
		return false
	}
	if x.days != nil && x.days[wall.Weekday().String()] == x.notDays {
		return false
	}
	sec := wall.Hour()*3600 + wall.Minute()*60 + wall.Second()
	switch {
	case x.fromHour != nil && x.untilHour != nil && *x.fromHour > *x.untilHour: // over midnight
		return sec >= *x.fromHour || sec <= *x.untilHour
	case x.fromHour != nil && sec < *x.fromHour, x.untilHour != nil && sec > *x.untilHour:
		return false
	}
	return true
}

// clock reads the time options, nil when there are none.
func (o *options) clock() *clockMatch {
	o.flag("utc_time", false) // read and not used by fw4
	x := clockMatch{
		from:      pointer(o, "start_date", parseDate),
		until:     pointer(o, "stop_date", parseDate),
		fromHour:  pointer(o, "start_time", parseClock),
		untilHour: pointer(o, "stop_time", parseClock),
	}
	if d := pointer(o, "weekdays", parseWeekdays); d != nil {
		x.days, x.notDays = d.days, d.not
	}
	unsupported(o, "monthdays", parseMonthdays)
	if x.from == nil && x.until == nil && x.fromHour == nil && x.untilHour == nil && x.days == nil {
		return nil
	}
	return &x
}

var (
	dateForm  = regexp.MustCompile(`^([0-9]{4})(-([0-9]{1,2})(-([0-9]{1,2})(T([0-9:]+))?)?)?$`)
	clockForm = regexp.MustCompile(`^([0-9]{1,2})(:([0-9]{1,2})(:([0-9]{1,2}))?)?$`)
)

func parseDate(s string) (time.Time, bool) {
	m := dateForm.FindStringSubmatch(s)
	if m == nil {
		return time.Time{}, false
	}
	year, _ := strconv.Atoi(m[1])
	month, _ := strconv.Atoi(m[3])
	day, _ := strconv.Atoi(m[5])
	if year < 1970 || year > 2038 || month > 12 || day > 31 {
		return time.Time{}, false
	}
	at := "0"
	if m[7] != "" {
		at = m[7]
	}
	sec, ok := parseClock(at)
	return time.Date(year, time.Month(max(month, 1)), max(day, 1), 0, 0, sec, 0, time.UTC), ok
}

// parseClock gives seconds since midnight.
func parseClock(s string) (int, bool) {
	m := clockForm.FindStringSubmatch(s)
	if m == nil {
		return 0, false
	}
	h, _ := strconv.Atoi(m[1])
	min, _ := strconv.Atoi(m[3])
	sec, _ := strconv.Atoi(m[5])
	return h*3600 + min*60 + sec, h <= 23 && min <= 59 && sec <= 59
}

type weekdays struct {
	days map[string]bool
	not  bool
}

func parseWeekdays(s string) (weekdays, bool) {
	n, ok := parseNegatable(s)
	if !ok {
		return weekdays{}, false
	}
	w := weekdays{days: map[string]bool{}, not: n.not}
	for _, d := range words(n.val) {
		day, ok := parseDay(d)
		if !ok {
			return weekdays{}, false
		}
		w.days[day] = true
	}
	return w, true
}

func parseMonthdays(s string) (bool, bool) {
	n, ok := parseNegatable(s)
	if !ok {
		return false, false
	}
	for _, d := range words(n.val) {
		v, err := strconv.Atoi(d)
		if err != nil || v < 1 || v > 31 {
			return false, false
		}
	}
	return true, true
}
