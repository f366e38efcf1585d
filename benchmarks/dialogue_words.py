"""What is said in the self-made dialogues (`dialogues.py`): services, phrases, asides. Made up."""

from __future__ import annotations

#: service | searching call | committing call | what a row is called | noun; then its arguments:
#: name, kind | phrases | questions. `*`: only the committing call takes it
SERVICES = """
Depot|FindBay|ReserveBay|bay_name|a loading bay
site,town|in {};at our {} yard|Which yard should I look at?;In what town do you need it?
arrival_date,date|on {};arriving {}|What day does the load arrive?;For which date?
dock_time,time|at {};around {}|At what time should the dock be free?;What time suits you?
*pallets,number|for {} pallets;{} pallets|How many pallets are there?
goods,goods|for {};storing {}|What kind of goods is it?
Archive|SearchBoxes|RequestBox|box_label|a box from the archive
collection,goods|from the {} collection;about {}|Which collection is it?;What is it about?
author,person|written by {};by {}|Who wrote it?;Do you know the author?
*reading_room,room|to the {};in the {}|Which room shall I bring it to?
*visit_date,date|for {};on {}|When will you come?;What date is your visit?
Greenhouse|FindBeds|PlantBed|bed_name|a bed in the greenhouse
crop,crop|for {};to grow {}|What would you like to grow?
zone,room|in the {};inside the {}|Which part of the house?
*sowing_date,date|sown on {};starting {}|What day should we sow?;When do you want to begin?
*rows,number|{} rows;with {} rows|How many rows do you want?
Survey|ListCrews|SendCrew|crew_name|a survey crew
start_point,town|from {};leaving from {}|Where do they leave from?;Which place do they start at?
end_point,town|to {};going to {}|Where are they going?;To which place should they go?
start_date,date|on {};from {}|When do they leave?;On what day do they start?
end_date,date|until {};coming back {}|When do they return?;What day should they be back?
*crew_size,number|{} people;a crew of {}|How many people do you need?
Workshop|FindMechanic|BookRepair|mechanic_name|someone for a repair
machine,machine|for my {};to fix a {}|What needs repair?;Which machine is it?
city,town|in {};near {}|Where are you?;What city are you in?
*repair_date,date|on {};for {}|What date works?;Which day should they come?
*repair_time,time|at {};by {}|What time works for you?;At what hour?
Lab|FindTests|OrderTest|test_name|a laboratory test
sample_type,crop|on {};of {}|What is the sample?
lab_location,town|at the lab in {};in {}|Which lab do you prefer?;Where should it be done?
*contact,person|for {};under the name {}|What name should I put?;Who is the contact?
*pickup_time,time|picked up at {};at {}|When can we pick it up?;What time should the courier come?
Build|ListRunners|StartBuild|runner_name|a build machine
branch,code|of branch {};for {}|Which branch should I build?
platform,machine|on a {};using the {}|On what should it run?
*notify,person|and tell {};notify {}|Who should be told?
*deadline,time|before {};by {}|Until when must it finish?;What time is the limit?
Studio|FindDesks|RentDesk|desk_name|a desk in the studio
area,town|in {};around {}|Which area?;In which town?
desk_type,room|near the {};by the {}|What place in the house do you like?
*from_date,date|from {};starting {}|From which day?;When would you like to start?
*seats,number|for {} people;with {} seats|How many seats do you need?
"""
SURE = [
    "Yes.",
    "Yes, please.",
    "Yes, that's right.",
    "Sure, go ahead.",
    "That works.",
    "Correct.",
    "Okay, great.",
    "Yes, that is fine.",
    "Sounds good.",
]
MORE = ["Is there anything else I can do?", "Can I help you with anything else?", "Anything else?"]
BYE = ["No, that is all. Thank you.", "Thanks, that's it.", "No, thank you.", "That's all I need, thanks."]
CLOSE = ["Have a good day.", "Goodbye.", "Take care!", "Have a great day!"]
CHANGED = [
    "No, {} instead.",
    "Actually, make it {}.",
    "Sorry, I meant {}.",
    "Wait, {} please.",
    "No, I would rather have it {}.",
    "I changed my mind, {}.",
    "Not quite. {} please.",
    "Could you make that {}?",
]
ANSWERS = [
    "{}.",
    "{}, please.",
    "Make it {}.",
    "It should be {}.",
    "I would like it {}.",
    "{} would be best.",
]
FAILED = ["Sorry, that did not work.", "I was not able to do that.", "Unfortunately it is not available."]
DONE = ["It is done.", "Your request has been confirmed.", "That has been booked.", "The order was sent."]
OPENING = [
    "I need {}",
    "I want {}",
    "Please find me {}",
    "Can you get me {}",
    "I'm looking for {}",
    "Find {}",
]
ENDINGS = ["House", "Point", "Yard", "Line", "Works"]
ASIDES = {
    "USER": [
        "What is the phone number?",
        "Is it open late and does it have parking?",
        "My brother told me about it.",
        "My sister would like that.",
        "I have been waiting for {number} weeks.",
        "I saw it with {person} last month.",
        "Tell me whether it is heated, and who runs it.",
        "How far is it from {town}?",
        "That is a good one.",
        "I only ask since we move in spring.",
        "Can you check how long the way is?",
        "Is there a ramp?",
        "Also, do they take cards?",
        "It is for a friend of mine.",
        "We had {goods} there before.",
        "Does {person} own it?",
    ],
    "SYSTEM": [
        "It has {number} floors and a rating of 3.{number}.",
        "It opened in 19{number}.",
        "It belongs to {person}.",
        "The road there is {number} metres long and freshly paved.",
        "It costs ${number}.",
        "It is {number} miles from {town} Central.",
        "They close at {time}.",
        "The phone number is 555-01{number}.",
        "It is known for its {goods}.",
        "The last visit was on {date}.",
        "No pets are allowed there.",
        "You can pay in cash.",
        "It was named after {town}.",
        "They have {number} like that in total.",
    ],
}
THERE = {
    "town": ["there", "in the same town", "there as well"],
    "date": ["on that day", "the same day"],
    "person": ["for the same person"],
    "time": ["at the same time"],
}
NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
SOUNDS = [
    "ka",
    "lo",
    "mi",
    "ren",
    "tor",
    "vel",
    "sun",
    "dar",
    "be",
    "nor",
    "hil",
    "fa",
    "gre",
    "os",
    "ta",
    "quin",
    "ber",
    "wal",
    "lin",
    "ester",
]
WORDS = {
    "goods": "copper wire,dried fruit,old maps,steel pipes,glass jars,ship records,paper rolls,wool",
    "crop": "tomatoes,river water,basil,winter wheat,clay soil,green beans,oak leaves,barley",
    "room": "north hall,upper gallery,east wing,cellar,map room,glass wing,long table,back office",
    "machine": "lathe,band saw,tractor,large mill,label printer,pump,arm board,press",
}
MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]

THINGS = [
    "pallet",
    "gauge",
    "ledger",
    "permit",
    "voucher",
    "beacon",
    "orchard",
    "kiln",
    "ferry",
    "valve",
    "meadow",
    "turbine",
]
FIELDS = [
    "id",
    "name",
    "code",
    "status",
    "total",
    "label",
    "owner",
    "address",
    "title",
    "kind",
    "state",
    "link",
    "amount",
]
